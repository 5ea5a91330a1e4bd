"""Reads a sweep file into cells, one for each combination of settings.

base:                             settings of every cell
  rounds: 50
grid:                             every combination; a list a setting
  seed: [0, 1, 2]
  distribution: [iid, dirichlet]
  beta: [0.1, 0.5]                no effect with iid, so that each seed has three cells, not four
runs:                             rows that are not a product; each is combined with the whole grid
  - {compressor: none}
  - {compressor: topk, density: [0.01, 0.1]}      a list makes a row of each of its values
plot: {x: density, lines: compressor, panels: [distribution, beta]}    optional; without x, the uplink is on the x axis
"""

import hashlib
import itertools
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsparse.config import KEYS, Config, unknown_key
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import ConfigError
from fedsparse.report.results import identity, used

Settings = dict[str, Any]
PARTS = ("base", "grid", "runs", "plot")
FOLDERS = ("name", "logdir", "outfile")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        chosen: the settings from ``grid`` and ``runs`` that have an effect, validated; they distinguish the cell.
        config: all its settings, validated.
    """

    chosen: Settings
    config: Config

    @property
    def name(self) -> str:
        """The name of the cell's folder: the chosen settings, and a hash of all settings that decide its numbers."""
        words = ",".join(f"{key}={value}" for key, value in self.chosen.items())
        digest = hashlib.sha256(repr(identity(self.config.flat())).encode()).hexdigest()[:8]
        return f"{re.sub(r'[^-+=,.A-Za-z0-9]+', '_', words)[:120]}-{digest}".lstrip("-.")


@dataclass(frozen=True)
class Sweep:
    """A sweep file: its name, its distinct cells, and the arguments of ``plot_rows`` for its picture."""

    name: str
    cells: tuple[Cell, ...]
    plot: dict[str, Any]


def read_sweep(path: str | Path, overrides: Mapping[str, Any]) -> Sweep:
    """The sweep that a YAML file describes, every cell validated.

    Args:
        path: of the file; its stem is the sweep's name.
        overrides: settings from the command line: stronger than ``base``, and weaker than ``grid`` and ``runs``. One
            that was typed, and is then overruled in every cell, is refused.

    Raises:
        ConfigError: one line that names the file and its mistake.
    """
    content = read_yaml(path)
    try:
        return sweep_of(Path(path).stem, content, overrides)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def sweep_of(name: str, content: Mapping[str, Any], overrides: Mapping[str, Any]) -> Sweep:
    """The sweep that the content of a sweep file describes; see :func:`read_sweep`."""
    for part in content:
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r}; a sweep has {', '.join(PARTS)}")
    base = _kebab(_mapping(content, "base")) | _kebab(overrides)
    runs = content.get("runs") or [{}]
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise ConfigError("runs should be a list of settings")
    grid = spread(_mapping(content, "grid"))
    rows = [run for entry in runs for run in spread(entry)]
    if own := {key for key in (*grid[0], *(k for run in rows for k in run)) if key in FOLDERS}:
        raise ConfigError(f"{min(own)} cannot vary: a sweep has folders of its own")
    if both := {key for run in rows for key in run if key in grid[0]}:
        raise ConfigError(f"{min(both)} is in both grid and runs")
    _check_overrides(overrides, grid, rows)
    # By grid first: where the grid begins with the seed, a whole table is there after the first seed.
    chosen = [run | combination for combination in grid for run in rows]
    cells = distinct(_cell(base, c) for c in chosen)
    plot = _plot(_mapping(content, "plot"))
    if not (content.get("grid") or content.get("runs")):
        raise ConfigError("there is nothing to try in it: give it a grid or runs")
    return Sweep(name, cells, plot)


def spread(axes: Mapping[str, Any]) -> list[Settings]:
    """The product of the axes, each a setting with its value or its list of values; the last axis varies fastest.

    Raises:
        ConfigError: an unknown setting, or an empty list.
    """
    choices = []
    for key, values in _kebab(axes).items():
        values = values if isinstance(values, list) else [values]
        if not values:
            raise ConfigError(f"{key} has no values")
        choices.append([(key, value) for value in values])
    return [dict(combination) for combination in itertools.product(*choices)]


def _check_overrides(overrides: Mapping[str, Any], grid: list[Settings], rows: list[Settings]) -> None:
    """Refuse a flag that changes no cell; tell of such a setting in a file."""
    for key in sorted(overrides):
        tried = [settings[key] for axis in (grid, rows) for settings in axis if key in settings]
        if key in grid[0] or len(tried) == len(rows):
            values = ", ".join(dict.fromkeys(map(str, tried)))
            line = f"{key} {overrides[key]} has no effect: the file itself tries {key} = {values}"
            if key in getattr(overrides, "typed", ()):
                raise ConfigError(f"--{line}")
            print(line, file=sys.stderr)


def _cell(base: Settings, chosen: Settings) -> Cell:
    config = Config.from_mapping(base | chosen)
    values = used(config)
    return Cell({key: values[key] for key in chosen if key in values}, config.absolute_paths())


def distinct(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """The cells without repetitions: a cell is left out if an earlier cell must give the same numbers."""
    first: dict[object, Cell] = {}
    for cell in cells:
        first.setdefault(identity(cell.config.flat()), cell)
    return tuple(first.values())


def _mapping(content: Mapping[str, Any], part: str) -> Settings:
    value = content.get(part) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{part} should hold lines like 'rounds: 100', not a {type(value).__name__}")
    return value


def _kebab(settings: Mapping[str, Any]) -> Settings:
    return {_key(key): value for key, value in settings.items()}


def _key(key: str) -> str:
    kebab = str(key).replace("_", "-")
    if kebab not in KEYS:
        raise ConfigError(unknown_key(kebab))
    return kebab


def _plot(plot: Settings) -> dict[str, Any]:
    """The arguments of ``plot_rows``."""
    lists = {part: keys if isinstance(keys, list) else [keys] for part, keys in plot.items()}
    for part, keys in lists.items():
        if part not in ("x", "lines", "panels"):
            raise ConfigError(f"plot has no {part!r}; it has x, lines and panels")
        lists[part] = [_key(key) for key in keys if (part, key) != ("x", "uplink")]
    return {part: "".join(keys[:1]) or "uplink" if part == "x" else keys for part, keys in lists.items()}
