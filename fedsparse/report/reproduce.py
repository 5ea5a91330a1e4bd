"""The command that makes a run again, and the settings that a reader should know."""

import shlex
from collections.abc import Mapping
from typing import Any

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.report.results import FEDERATED, Result, command_of, used


def unusual(result: Result) -> Mapping[str, Any]:
    """The settings on which a run's numbers depend and that are not at their defaults."""
    defaults = Config.from_mapping({}).flat()
    try:
        settings = used(Config.from_mapping(result["config"]), command_of(result))
    except ConfigError:  # of another version
        settings = dict(result["config"])
    return {key: value for key, value in settings.items() if value != defaults.get(key)}


def command(result: Result) -> str:
    """What to type for the same run."""
    name = command_of(result)
    words = ["python", "main.py", *([name] if name != FEDERATED else [])]
    for key, value in unusual(result).items():
        words += [f"--{key}", str(value).lower() if isinstance(value, bool) else str(value)]
    return shlex.join(words)
