"""Run somebody's Flower app on the local engine."""

from collections.abc import Collection, Mapping
from typing import Any

from fedsparse.commands.all_commands import APP
from fedsparse.config import Config
from fedsparse.config.run_settings import core_count
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.flower.app_runner import run_app

LIMIT_GB = "10"


def act(settings: Given, path: str, **own: str) -> None:
    """`main.py run-app PATH`.

    Raises:
        ConfigError: a mistake of the user's.
        RunFailed: the run failed.
    """
    limit = own.get("journal-gb", LIMIT_GB)
    try:
        journal_gb = float(limit)
    except ValueError:
        journal_gb = -1.0
    if not journal_gb >= 0:
        raise ConfigError(f"journal-gb = {limit}: should be a number of gigabytes, 0 for no journal")
    config = checked("run-app", APP, settings, own)
    run_app(
        path, journal_gb=journal_gb, logdir=config.logdir, name=config.name, resume=config.resume, **shared(config, own)
    )  # fmt: skip


def checked(command: str, able: Collection[str], settings: Given, own: Mapping[str, str]) -> Config:
    """Our settings for a command that runs an app, where only some of them have an effect.

    Raises:
        ConfigError: a setting is not among ``able``, or is wrong.
    """
    if other := sorted(settings.keys() - able):
        raise ConfigError(f"{other[0]} is no setting of {command}: an app's own settings are given by --run-config")
    return Config.from_mapping({**settings, "workers": own.get("workers", "1")})


def shared(config: Config, own: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of ``run_app`` that are the same for every command that runs an app."""
    return {
        "run_config": own.get("run-config", ""),
        "num_supernodes": own.get("num-supernodes", ""),
        "workers": core_count() if config.workers == "auto" else config.workers,
        "threads": config.threads,
        "seed": config.seed,
        "client_timeout": config.client_timeout,
    }
