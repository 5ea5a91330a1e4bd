"""Experiments from Python: in a script, a notebook, or from standard input."""

import hashlib
import json
import logging
import os
import pickle
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsparse.config import OWN, Config
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError

if TYPE_CHECKING:
    import pandas
    from torch import nn


class Result:
    """A finished run.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return content

    @property
    def config(self) -> Config:
        """The settings."""
        return Config.from_mapping(self._content["config"])

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Each round's measurements by telemetry's tags, such as ``eval/accuracy``; round 0 is before training."""
        rounds: list[dict[str, Any]] = self._content["rounds"]
        return rounds

    @property
    def summary(self) -> dict[str, Any]:
        """The run in a few numbers, such as ``accuracy``, ``uplink-bytes`` and ``seconds``."""
        summary: dict[str, Any] = self._content["summary"]
        return summary

    def frame(self) -> "pandas.DataFrame":
        """``rounds`` as a table with a row a round.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self.rounds).set_index("round")

    def model(self) -> "nn.Module":
        """The network with its final weights, on the CPU."""
        import torch

        from fedsparse.experiment import Experiment

        state = torch.load(self.folder / "model.pt", map_location="cpu", weights_only=True)
        network = Experiment(self.config.replace(device="cpu", init="")).shaped_as(state).model.module
        network.load_state_dict(state)
        return network

    def __repr__(self) -> str:
        from fedsparse.report.results import headline_of

        shown = ("rounds", headline_of(self._content).name, "uplink-bytes", "uplink-ratio")
        measured = {key: self.summary.get(key) for key in shown}
        words = ", ".join(f"{key} {value:.4g}" for key, value in measured.items() if value is not None)
        return f"Result({str(self.folder)!r}: {words})"


def run(settings: Mapping[str, Any] | None = None, **keywords: Any) -> Result:
    """Train a federation.

    Args:
        settings: by name, in kebab or snake case, for instance from ``Config.flat``.
        keywords: more settings, in snake case; they override ``settings``. A setting that may name an object of the
            user's own, such as ``model``, may also be that class or function itself.

    Raises:
        ConfigError: a mistake in the settings.
        RunFailed: the run could not go on; its folder has the rounds up to then.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch loads: see ``commands.door``
    from fedsparse.commands import warnings_handler
    from fedsparse.commands.checks import checked
    from fedsparse.commands.resume import resumed
    from fedsparse.commands.run import start

    if not (log := logging.getLogger("fedsparse")).handlers:
        log.addHandler(warnings_handler())
    given = Given({key.replace("_", "-"): value for key, value in {**(settings or {}), **keywords}.items()})
    for key, value in given.items():
        given[key] = os.fspath(value) if isinstance(value, os.PathLike) else value
    logdir = Path(given.get("logdir", Config.from_mapping({}).logdir))
    for key in OWN:
        if key in given and not isinstance(given[key], str):
            given[key] = reference_to(given[key], key, logdir)
    given.typed = frozenset(key.replace("_", "-") for key in keywords)
    if given.get("resume"):
        given = resumed(given)
    return Result(start(checked(given)))


def reference_to(thing: Any, key: str, logdir: Path) -> str:
    """A reference by which every process finds a class or function of the user's.

    The reference to an object of a module is ``module:name``. Other processes cannot import the main script, a notebook
    or a local scope, so an object from there is pickled, with its code, into ``<logdir>/objects``.

    Raises:
        ConfigError: ``thing`` is neither a class nor a function, or cannot be pickled.
    """
    if not callable(thing):
        raise ConfigError(f"{key} = {thing!r}: should be a name, a reference, or a class or function")
    name = getattr(thing, "__name__", type(thing).__name__)
    module = sys.modules.get(getattr(thing, "__module__", ""))
    if module is not None and module.__name__ != "__main__" and getattr(module, name, None) is thing:
        return f"{module.__name__}:{name}"
    import cloudpickle

    try:
        content = cloudpickle.dumps(thing)
    except (pickle.PicklingError, TypeError) as error:
        raise ConfigError(f"{key} = {name}: {error}; put it into a file of its own") from None
    name = re.sub(r"\W", "", name)  # because "<lambda>" is no file name
    file = logdir.expanduser().absolute() / "objects" / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.pickle"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return f"{file}:{name}"
