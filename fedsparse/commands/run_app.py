"""Run somebody's Flower app on the local engine."""

from fedsparse.config import Config
from fedsparse.config.run_settings import core_count
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.flower.app_runner import run_app

SETTINGS = frozenset({"threads", "seed", "client-timeout", "logdir", "name", "resume"})
"""Our settings that hold for an app, too."""
LIMIT_GB = "10"


def act(settings: Given, path: str, **own: str) -> None:
    """`main.py run-app PATH`.

    Raises:
        ConfigError: a mistake of the user's.
        RunFailed: the run failed.
    """
    if other := sorted(settings.keys() - SETTINGS):
        raise ConfigError(f"{other[0]} is no setting of run-app: an app's own settings are given by --run-config")
    config = Config.from_mapping({**settings, "workers": own.get("workers", "1")})
    limit = own.get("journal-gb", LIMIT_GB)
    try:
        journal_gb = float(limit)
    except ValueError:
        raise ConfigError(f"journal-gb = {limit}: should be a number of gigabytes, 0 for no journal") from None
    run_app(
        path,
        own.get("run-config", ""),
        num_supernodes=own.get("num-supernodes", ""),
        workers=core_count() if config.workers == "auto" else config.workers,
        threads=config.threads,
        seed=config.seed,
        client_timeout=config.client_timeout,
        journal_gb=journal_gb,
        logdir=config.logdir,
        name=config.name,
        resume=config.resume,
    )
