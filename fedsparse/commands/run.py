"""Train a federation on the engine of the settings."""

import json
import os
import sys
from pathlib import Path

from fedsparse.commands.resume import nothing_left
from fedsparse.config import Config
from fedsparse.config.effects import without_mistakes
from fedsparse.config.settings import Given
from fedsparse.engine import fork_server
from fedsparse.plugins import is_own
from fedsparse.telemetry.header import header

FLOWER_APPS = "fedsparse.flower_server:app", "fedsparse.flower_client:app"
CLIENT_APP = "fedsparse.clients.client_app:app"
PRELOADED = ["fedsparse.engine.pool", "fedsparse.clients.client_app", "fedsparse.clients.preload"]
"""What the fork server imports."""


def run(settings: Given) -> None:
    """`main.py`."""
    config = without_mistakes(settings)
    print(header(config), flush=True)
    if not is_own(config.dataset):  # a user's own loader may not bear to run twice at once
        start_workers_early(config)
    from fedsparse.commands.checks import checked  # here, because it imports torch, which takes seconds

    start(checked(settings))


def start_workers_early(config: Config) -> None:
    """Start the process that forks the workers, if there will be any; it reads app and data as this process does."""
    if config.engine != "local" or config.worker_count() == 1:
        return
    os.environ[fork_server.DATA] = json.dumps(config.absolute_paths().loading())  # absolute, as for the clients
    fork_server.start(PRELOADED)
    del os.environ[fork_server.DATA]


def start(config: Config, until: int | None = None) -> Path:
    """Run checked settings; returns the run folder.

    Args:
        until: the round after which to stop (local engine); None for the last.
    """
    if config.resume and nothing_left(config):
        print(f"{config.resume} is complete; --rounds gives it more rounds", file=sys.stderr)
        return Path(config.resume)
    if config.engine == "flower":
        from fedsparse.engine.flower_run import run_flower

        return run_flower(config, *FLOWER_APPS)
    from fedsparse.engine import LocalGrid
    from fedsparse.strategies.server_app import federate

    start_workers_early(config)
    with LocalGrid(
        CLIENT_APP,
        config.clients,
        together="fedsparse.clients.client_app:train_together",
        workers=config.worker_count(),
        threads=config.threads,
        client_timeout=config.client_timeout,
    ) as grid:
        return federate(grid, config, until)
