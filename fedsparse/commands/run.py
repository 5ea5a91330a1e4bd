"""Train a federation, on the engine that the settings name."""

import json
import os
import sys
from pathlib import Path

from fedsparse.config import KEYS, Config
from fedsparse.config.effects import without_effect, without_mistakes
from fedsparse.config.settings import Given
from fedsparse.engine import LocalGrid
from fedsparse.experiment import Experiment, Training
from fedsparse.telemetry.folder import check_writable


def run(settings: Given) -> None:
    """`main.py`."""
    start(checked(settings))


def checked(settings: Given, training: Training = "federated") -> Config:
    """The settings with absolute paths, after a look at everything that could stop a run at once.

    Args:
        training: what the command trains.

    Raises:
        ConfigError: a mistake in the settings or in anything that they name, or a flag without effect.
        OutputError: results cannot be written.
    """
    config = without_mistakes(settings)
    if not settings.keys() >= set(KEYS):  # a run's own config.yaml names every setting, and means nothing by it
        for line in without_effect(config, settings.keys() - settings.typed):
            print(line, file=sys.stderr)
    config = config.absolute_paths()
    check_writable(config.logdir, config.outfile)
    Experiment(config).check(training)
    return config


def start(config: Config) -> Path:
    """Run checked settings; the folder of results."""
    if config.engine == "flower":
        from fedsparse.engine.flower_run import run_flower

        return run_flower(config, app_folder=Path(__file__).parents[2])
    from clients.preload import DATA
    from strategies.server_app import federate

    os.environ[DATA] = json.dumps([config.dataset, config.data_dir])  # for the fork server, which LocalGrid starts
    with LocalGrid(
        "clients.client_app:app",
        config.clients,
        together="clients.client_app:train_together",
        workers=config.worker_count(),
        threads=config.threads,
        client_timeout=config.client_timeout,
        preload=["clients.preload"],
    ) as grid:
        del os.environ[DATA]
        return federate(grid, config)
