"""Runs read back: from their result.json or, of a run that was killed, from its rounds.csv.

What a result is stands in it: the ``command`` that made it, how it ``ended``, and whether it ``diverged``. Whatever
groups, skips or averages runs asks the functions here.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedsparse.config import Config
from fedsparse.config.adaptive_settings import AdaptiveSettings
from fedsparse.config.effects import in_effect
from fedsparse.config.few_bits_settings import FewBitsSettings
from fedsparse.config.lowrank_settings import LowRankSettings
from fedsparse.config.model_settings import ModelSettings
from fedsparse.config.training_settings import TrainingSettings
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import ConfigError
from fedsparse.telemetry.summary import summary_of
from fedsparse.telemetry.tags import ACCURACY, KILLED, Headline

Result = Mapping[str, Any]
"""What ``result.json`` holds: command, config, provenance, rounds, summary."""

FEDERATED, CENTRAL = "run", "train-central"
"""The commands whose results are runs."""

ENDED = "ended"
"""The column of a table that says why a run was cut short."""

CENTRAL_GROUPS = (ModelSettings, LowRankSettings, FewBitsSettings, TrainingSettings, AdaptiveSettings)
CENTRAL_SETTINGS = frozenset(
    {
        *("dataset", "augment", "rounds", "eval-every", "seed", "device", "threads"),
        *(name.replace("_", "-") for group in CENTRAL_GROUPS for name in group.model_fields),
    }
) - {"cohort-batching", "depths", "least-depth", "weight-broadcast", "lowrank-average", "client-models"}
"""On the other settings a central run does not depend."""


class NoRunError(ConfigError):
    """A JSON file that is whole, but not the result of a run; or the rows of a run that measured nothing."""


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
    if isinstance(result, dict) and command_of(result) not in (FEDERATED, CENTRAL):
        raise NoRunError(f"{path} is not the result of a run: it is one of {command_of(result)}")
    if not isinstance(result, dict) or not {"config", "rounds", "summary"} <= result.keys():
        raise NoRunError(f"{path} is not the result of a run: it should have config, rounds and summary")
    rows, summary = result["rounds"], result["summary"]
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows) and isinstance(summary, dict)):
        raise ConfigError(f"{path} is damaged: rounds should be a list of mappings, and summary a mapping")
    if missing := {"uplink-bytes", "downlink-bytes", "seconds"} - summary.keys():
        raise ConfigError(f"{path} is damaged: its summary lacks {min(missing)}")
    return result


def read_killed(folder: Path, dense_bytes: float | None = None) -> Result:
    """What a run measured until it was killed, from its config.yaml and rounds.csv; or until now, if it goes on.

    Args:
        dense_bytes: of one message with the whole of the full model, if that is known.

    Raises:
        NoRunError: it measured nothing.
        ConfigError: a file is damaged.
    """
    path = folder / "rounds.csv"
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # the last row may be half written
        rows: list[dict[str, Any]] = [
            {tag: _number(value) for tag, value in row.items() if value} for row in csv.DictReader(io.StringIO(whole))
        ]
    except (OSError, ValueError, TypeError, csv.Error):
        raise ConfigError(f"{path} is damaged") from None
    if not rows:
        raise NoRunError(f"{path} has no rounds")
    summary = whole_summary({"rounds": rows, "summary": {}}, dense_bytes)
    loss = next((float(row["eval/loss"]) for row in reversed(rows) if "eval/loss" in row), 0.0)
    summary |= {"ended": KILLED, "diverged": not math.isfinite(loss)}
    # A federation records its first weights as round 0. Central training has no round 0.
    command = CENTRAL if rows[0]["round"] else FEDERATED
    config, origin = read_yaml(folder / "config.yaml"), _provenance(folder / "provenance.json")
    with suppress(ConfigError):  # of another version: its settings stay text
        config = Config.from_mapping(config).flat()
    return {"command": command, "config": config, "provenance": origin, "rounds": rows, "summary": summary}


def whole_summary(result: Result, dense_bytes: float | None = None) -> dict[str, Any]:
    """A run's summary, where what it lacks, as an older version's does, is taken from the rounds."""
    rows = [{tag: float(value) for tag, value in row.items()} for row in result["rounds"]]
    seconds = sum(row.get("time/round", 0.0) for row in rows)
    headline = headline_of(result)
    return summary_of(rows, headline, other_metrics(result), dense_bytes, seconds) | dict(result["summary"])


def _read(file: Path) -> Result:
    """The run in a result.json, or in a rounds.csv; of a run that goes on, the later one of its folder's."""
    if file.name == "rounds.csv":
        return read_killed(file.parent)
    result = read_result(file)
    if result["summary"].get("ended") == KILLED and (file.parent / "rounds.csv").is_file():
        uploads = sum(row.get("comm/clients", 0) for row in result["rounds"])
        dense = result["summary"].get("dense-uplink-bytes")
        with suppress(NoRunError):
            return read_killed(file.parent, dense / uploads if dense and uploads else None)
    return result


def _provenance(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # of an older version
        return {}


def find_results(paths: Iterable[str | Path]) -> tuple[dict[Path, Result], list[str]]:
    """The runs in run folders, sweep folders (every cell's) and single files, in order, each by its file.

    Returns:
        The runs; and a line for each path without one.

    Raises:
        ConfigError: a path does not exist, a file is damaged, or there is no run at all.
    """
    folders, found, notes = [Path(path) for path in paths], dict[Path, Result](), list[str]()
    for path in folders:
        if not path.exists():
            raise ConfigError(f"there is no run folder {path}")
        others = [f"{path} holds no result.json: it is not the folder of a run"]
        files = list(_result_files(path))
        for file in files:
            try:
                found[file.resolve()] = _read(file)
            except NoRunError as error:  # such as the result of prune
                others.append(str(error))
        if not any(file.resolve() in found for file in files):
            notes.append(others[-1])
    if not found:
        raise ConfigError(notes[0] if len(folders) == 1 else "none of these folders holds the result of a run")
    return found, [f"left out: {note}" for note in notes]


def without_repeats(found: Mapping[Path, Result]) -> tuple[dict[Path, Result], list[str]]:
    """Of runs of the same settings and seed only one, because the others are no further seeds.

    It is one that is complete, or else the longest.

    Returns:
        The runs, and a line for each that is left out.
    """
    best: dict[object, Path] = {}
    for file, result in found.items():
        own = identity(result["config"], command_of(result))
        key = (command_of(result), own) if own else file
        if key not in best or _worth(result) > _worth(found[best[key]]):
            best[key] = file
    kept = {file: result for file, result in found.items() if file in best.values()}
    return kept, [f"left out: {file.parent} repeats another run" for file in found if file not in kept]


def _worth(result: Result) -> tuple[bool, int]:
    return is_complete(result), len(result["rounds"])


def command_of(result: Result) -> str:
    """The command that made a result; an older one does not say it, and is taken for a federation's."""
    return str(result.get("command", FEDERATED))


def headline_of(result: Result) -> Headline:
    """The metric that is shown for a run: of the pooled test set, the first that a round has beside the loss."""
    return next(iter(_metrics(result)), _headline(next(iter(ACCURACY))))


def other_metrics(result: Result) -> list[Headline]:
    """The metrics of the pooled test set beside the loss and the headline."""
    return _metrics(result)[1:]


def _metrics(result: Result) -> list[Headline]:
    rounds = ([tag for tag in row if tag.startswith("eval/") and "/client_" not in tag] for row in result["rounds"])
    names = dict.fromkeys(tag.removeprefix("eval/") for tags in rounds for tag in tags if tag != "eval/loss")
    return [_headline(name) for name in names]


def _headline(name: str) -> Headline:
    return Headline(name, {"accuracy": ".1%", "perplexity": ".2f"}.get(name, ".4g"))


def evaluations(result: Result) -> list[float]:
    """The headline's values, one for each evaluation on the pooled test set."""
    tag = headline_of(result).tag
    return [float(row[tag]) for row in result["rounds"] if tag in row]


def is_complete(result: Result) -> bool:
    """Whether the run reached its last round."""
    return bool(result["summary"].get("ended") == "complete")


def flaw(result: Result) -> str:
    """Why a run was cut short or is worth nothing: "interrupted, round 27 of 60"; empty where it is sound.

    Runs with a flaw are listed, but not averaged with sound ones.
    """
    summary = result["summary"]
    words = "diverged" if summary.get("diverged") else "" if is_complete(result) else str(summary.get("ended"))
    return f"{words}, round {summary.get('rounds')} of {result['config'].get('rounds')}" if words else ""


def marked(runs: Iterable[tuple[Mapping[str, Any], Result]]) -> list[tuple[dict[str, Any], Result]]:
    """The runs, each with the settings that distinguish it, and with ``ended`` besides where any of them has a flaw."""
    listed = list(runs)
    flawed = any(flaw(result) for _, result in listed)
    return [({**settings, **({ENDED: flaw(result)} if flawed else {})}, result) for settings, result in listed]


def used(config: Config, command: str = FEDERATED) -> dict[str, Any]:
    """The settings on which a run's numbers depend."""
    flat = in_effect(config)
    return flat if command == FEDERATED else {k: v for k, v in flat.items() if k in CENTRAL_SETTINGS}


def identity(config: Mapping[str, Any], command: str = FEDERATED) -> tuple[tuple[str, Any], ...] | None:
    """The ``used`` settings, by which two runs are the same run; None where the settings are no longer valid.

    A setting that a result of an older version lacks counts as its default.
    """
    try:
        return tuple(used(Config.from_mapping(config), command).items())
    except ConfigError:
        return None


def _number(text: str) -> float | int | str:
    """As the JSON has it: whole numbers without a point, and NaN and infinity as text."""
    value = float(text)
    return text if not math.isfinite(value) else int(value) if value == int(value) else value


def _result_files(path: Path) -> Iterator[Path]:
    """The topmost result.json of each branch of folders: of a cell, its own and not the copy in its run folder.

    Of the folder of a run without one, its rounds.csv.
    """
    if path.is_file():
        yield path
    elif (path / "result.json").is_file():
        yield path / "result.json"
    elif (path / "rounds.csv").is_file() and (path / "config.yaml").is_file():
        yield path / "rounds.csv"
    else:
        for folder in sorted(p for p in path.iterdir() if p.is_dir()):
            yield from _result_files(folder)
