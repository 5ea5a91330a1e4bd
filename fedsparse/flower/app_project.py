"""What a Flower app's pyproject.toml says, read as `flwr run` reads it: components, run config, number of nodes."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from flwr.app.user_config import UserConfig
from flwr.common.config import flatten_dict, fuse_dicts, parse_config_args, validate_config
from flwr.supercore.utils import get_flwr_home

from fedsparse.errors import ConfigError

FEW_NODES = 10
"""The nodes of a federation whose size is given nowhere."""


@dataclass(frozen=True)
class Project:
    """A Flower app's folder.

    Attributes:
        folder: where the app's modules are found.
        name: of the project.
        server_app, client_app: references, ``package.module:attribute``.
        run_config: the settings and their defaults; the keys of nested tables are joined by dots.
        federations: the table ``[tool.flwr.federations]`` of older apps; empty in new ones.
    """

    folder: Path
    name: str
    server_app: str
    client_app: str
    run_config: UserConfig
    federations: Mapping[str, Any]


def read_project(path: str) -> Project:
    """The project in a folder.

    Raises:
        ConfigError: there is none, or `flwr run` would refuse it.
    """
    folder = Path(os.path.expanduser(path)).absolute()  # Path.expanduser raises where there is no such user
    file = folder / "pyproject.toml"
    if path.startswith("@"):
        raise ConfigError(f"{path}: run-app runs apps of this machine; `flwr new {path}` downloads this one")
    if not file.is_file():
        raise ConfigError(f"{path} is not the folder of a Flower app: it has no pyproject.toml")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        valid, mistakes, _ = validate_config(content, check_module=False)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # in TOML, UTF-8, or what should be a table
        valid, mistakes = False, [str(error)]
    if not valid:
        raise ConfigError(f"{file}: {'; '.join(mistake.strip().splitlines()[0] for mistake in mistakes)}")
    flower = content["tool"]["flwr"]
    parts = flower["app"]["components"]
    if "agentapp" in parts:
        raise ConfigError(f"{file}: it has an AgentApp; run-app runs a ServerApp and a ClientApp")
    settings = flatten_dict(flower["app"].get("config", {}))
    federations = flower.get("federations", {})
    return Project(folder, content["project"]["name"], parts["serverapp"], parts["clientapp"], settings, federations)


def run_config_of(project: Project, given: str | Mapping[str, Any]) -> UserConfig:
    """The app's settings, with those that the user gave.

    Args:
        given: ``'key=1 other="text"'``, or the name of a TOML file, as for `flwr run --run-config`; or the settings.

    Raises:
        ConfigError: ``given`` cannot be read, or the app has no such setting.
    """
    try:
        overrides = _parsed(given) if isinstance(given, str) else flatten_dict(dict(given))
    except (click.ClickException, OSError, ValueError) as error:
        text = error.message if isinstance(error, click.ClickException) else str(error)
        raise ConfigError(f"run-config = {given}: {text}") from None
    if unknown := sorted(set(overrides) - set(project.run_config)):
        known = ", ".join(project.run_config) or "none at all"
        raise ConfigError(f"run-config: the app has no setting {unknown[0]!r}; pyproject.toml has {known}")
    return fuse_dicts(project.run_config, overrides)


def _parsed(given: str) -> UserConfig:
    """What Flower reads in a text; Flower itself passes over what it cannot read."""
    if not given.endswith(".toml"):
        rest = re.sub(r"(\S+?)=('[^']*'|\"[^\"]*\"|\S+)", "", given).strip()
        if rest:
            raise ValueError(f"{rest!r} is not of the form key=value")
    return parse_config_args([given])


def node_count(project: Project, asked: str | int) -> tuple[int, str]:
    """How many nodes the federation has, and who says so.

    The user, the federation in an older app's pyproject.toml, and Flower's own configuration file are asked in turn.

    Raises:
        ConfigError: it is not a whole number above 0.
    """
    for place, count in (
        ("--num-supernodes", asked),
        ("pyproject.toml", _nodes_of_default(project.federations)),
        (str(get_flwr_home() / "config.toml"), _nodes_of_default(_flower_connections())),
    ):
        if count in ("", None):
            continue
        if not re.fullmatch(r"[1-9]\d{0,17}", str(count)):
            raise ConfigError(f"num-supernodes = {count} of {place}: should be a whole number above 0")
        return int(count), f"as {place} says"
    return FEW_NODES, "by default; --num-supernodes gives another number"


def _nodes_of_default(places: Mapping[str, Any]) -> Any:
    """The number of nodes of the default one of several named federations or connections; None without a number."""
    found: Any = places
    for name in (str(_in(places, "default")), "options", "num-supernodes"):
        found = _in(found, name)
    return found


def _in(table: Any, key: str) -> Any:
    return table.get(key) if isinstance(table, Mapping) else None


def _flower_connections() -> Mapping[str, Any]:
    try:
        content = tomllib.loads((get_flwr_home() / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # most users have none, and none is needed here
        return {}
    found: Mapping[str, Any] = content.get("superlink", {})
    return found
