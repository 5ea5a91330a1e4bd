"""Where a run's measurements go beside the files of its folder: TensorBoard, and services that are installed.

A tracker is a subclass of :class:`Tracker` in a file of its own, and a line in ``catalogue.TRACKERS``.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from fedsparse.catalogue import TRACKERS
from fedsparse.config import Config
from fedsparse.errors import ConfigError, cause
from fedsparse.plugins import named
from fedsparse.telemetry.histograms import Histogram

PROJECT = "fedsparse"
"""What a service calls the runs together."""


@dataclass(frozen=True)
class Run:
    """What a tracker is told of a run before its first round.

    Attributes:
        folder: of the run.
        config: its settings.
        headline: the tag of the metric that matters most, such as ``eval/accuracy``.
    """

    folder: Path
    config: Config
    headline: str


@dataclass
class Details:
    """What depends on the model's layers, so that no table has a column for it; by tag.

    Attributes:
        images: uint8, shape ``(height, width)``.
    """

    scalars: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)


class Tracker(ABC):
    """Shows a run's rounds. A tracker leaves out what it cannot show.

    Args:
        run: the run.
        saved: of a run that goes on, what ``state`` returned at its checkpoint; None for a new run.
    """

    is_optional = True
    """Whether a run goes on without this tracker when it fails."""

    def __init__(self, run: Run, saved: Any = None) -> None:
        self.run = run

    @abstractmethod
    def round(self, round: int, row: Mapping[str, float]) -> None:
        """Show a round's numbers by tag."""

    @abstractmethod
    def finish(self, summary: Mapping[str, Any]) -> None:
        """Show the whole run's numbers; nothing comes after them.

        ``summary["ended"]`` says how the run ended, and is all there is where another tracker could not start.
        """

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Show a number whose steps are no rounds."""

    def details(self, round: int, details: Details) -> None:
        """Show what depends on the model's layers, which is measured only where a tracker overrides this method."""

    def figure(self, tag: str, figure: Figure) -> None:
        """Show a picture of the whole run."""

    def state(self) -> Any:
        """What goes into a checkpoint: tensors, numbers and strings."""
        return {}


def trackers_of(names: Sequence[str]) -> dict[str, type[Tracker]]:
    """The classes of the trackers by name.

    Raises:
        ConfigError: a tracker is not installed, or one of the user's own has a mistake; one line.
    """
    for name in names:
        if name in TRACKERS and importlib.util.find_spec(name) is None:
            raise ConfigError(f"tracker = {name}: is not installed; pip install {name}, or leave it out")
    return {name: named(TRACKERS, name) for name in names}


def start(run: Run, saved: Mapping[str, Any]) -> dict[str, Tracker]:
    """The run's trackers by name.

    Args:
        saved: of a run that goes on, the trackers' states.

    Raises:
        ConfigError: a tracker cannot start, such as one whose service asks for a login; one line. The trackers that
            have started are finished.
    """
    trackers: dict[str, Tracker] = {}
    for name, make in trackers_of(run.config.trackers).items():
        try:
            trackers[name] = make(run, saved.get(name))
        except Exception as error:
            for started in trackers.values():
                with suppress(Exception):  # the first error is the one to tell
                    started.finish({"ended": "failed"})
            if isinstance(error, OSError) and not make.is_optional:
                raise
            raise ConfigError(f"tracker = {name}: {cause(error)}") from error
    return trackers
