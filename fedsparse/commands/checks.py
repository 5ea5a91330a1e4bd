"""What a command looks at before it starts, so that a mistake shows at once and not in the middle of a run."""

import sys
from functools import lru_cache

from fedsparse.config import KEYS, Config
from fedsparse.config.effects import without_effect, without_mistakes
from fedsparse.config.settings import Given
from fedsparse.data import load_dataset
from fedsparse.experiment import Experiment
from fedsparse.preflight import Training, check
from fedsparse.telemetry.folder import check_writable
from fedsparse.telemetry.trackers import trackers_of


def checked(settings: Given, effects: bool = True, training: Training = "federated") -> Config:
    """The settings with absolute paths, after a check of everything that could stop a run at once.

    Args:
        effects: whether a setting that is without effect in a run is a mistake.
        training: what the command trains.

    Raises:
        ConfigError: a mistake in the settings or in an object or file that they name, or a flag without effect.
        OutputError: results cannot be written.
    """
    config = without_mistakes(settings) if effects else Config.from_mapping(settings)
    if effects and not settings.keys() >= set(KEYS):  # a run's own config.yaml names all
        for line in without_effect(config, settings.keys() - settings.typed):
            print(line, file=sys.stderr)
    config = config.absolute_paths()
    look(config, training)
    return config


def look(config: Config, training: Training = "federated") -> None:
    """Find out what could stop a run at once, and say what is odd about its data.

    Raises:
        ConfigError, OutputError: as :func:`checked`.
    """
    check_writable(config.logdir, config.outfile)
    trackers_of(config.trackers)
    check(Experiment(config), training)
    _tell_gaps(config.loading())


@lru_cache  # because the cells of a sweep share their data
def _tell_gaps(loading: tuple[str, str, str, int]) -> None:
    """Say which labels no training sample has, because they are most likely a mistake: labels from 1, a stray 255."""
    data = load_dataset(*loading)
    if gaps := data.classes_without_samples():
        outputs = f"the model has {data.classes} outputs, and learns nothing for these"
        print(f"dataset = {loading[0]}: no training sample has the label {gaps}; {outputs}", file=sys.stderr)
