"""Reads the results of finished runs from their result.json."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from fedsparse.config import Config
from fedsparse.config.effects import ONLY_PLACE_AND_SPEED, has_effect
from fedsparse.errors import ConfigError

Result = Mapping[str, Any]
"""The content of ``result.json``: config, versions, rounds, summary."""


class NoRunError(ConfigError):
    """A JSON file is whole, but not the result of a run."""


def read_result(path: Path) -> Result:
    """The result in a file.

    Raises:
        NoRunError: the file holds other JSON than a result.
        ConfigError: the file is missing or damaged.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path} is not JSON") from None
    if not isinstance(result, dict) or not {"config", "rounds", "summary"} <= result.keys():
        raise NoRunError(f"{path} is not the result of a run: it should have config, rounds and summary")
    rows, summary = result["rounds"], result["summary"]
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows) and isinstance(summary, dict)):
        raise ConfigError(f"{path} is damaged: rounds should be a list of mappings, and summary a mapping")
    if missing := {"uplink-bytes", "downlink-bytes", "seconds"} - summary.keys():
        raise ConfigError(f"{path} is damaged: its summary lacks {min(missing)}")
    return result


def find_results(paths: Iterable[str | Path]) -> list[Result]:
    """The results of run folders, of sweep folders (every cell's), and of single files, in order.

    Raises:
        ConfigError: a path does not exist, or holds no result.
    """
    results: dict[Path, Result] = {}  # by file, so that a file named twice counts once
    for path in map(Path, paths):
        if not path.exists():
            raise ConfigError(f"there is no run folder {path}")
        files = list(_result_files(path))
        if not files:
            raise ConfigError(f"{path} holds no result.json: it is not the folder of a finished run")
        for file in files:  # several files may include the result of prune
            with suppress(NoRunError) if len(files) > 1 else nullcontext():
                results[file.resolve()] = read_result(file)
    if not results:
        raise ConfigError("none of these folders holds the result of a run")
    return list(results.values())


def used(config: Config) -> dict[str, Any]:
    """The settings on which a run's numbers depend."""
    return {k: v for k, v in config.flat().items() if k not in ONLY_PLACE_AND_SPEED and has_effect(k, config)}


def identity(config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...] | None:
    """The ``used`` settings, equal for two runs that give the same numbers; None if the settings are no longer valid.

    A setting that an older result lacks counts as its default.
    """
    try:
        return tuple(used(Config.from_mapping(config)).items())
    except ConfigError:
        return None


def is_complete(result: Result) -> bool:
    """Whether the run reached its last round."""
    return bool(result["summary"].get("ended") == "complete")


def _result_files(path: Path) -> Iterator[Path]:
    """The topmost result.json in each branch of folders, so that a cell's copy in its run folder is left out."""
    if path.is_file():
        yield path
    elif (path / "result.json").is_file():
        yield path / "result.json"
    else:
        for folder in sorted(p for p in path.iterdir() if p.is_dir()):
            yield from _result_files(folder)
