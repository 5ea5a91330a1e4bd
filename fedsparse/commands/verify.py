"""Run the first rounds of a finished run again, and compare them with what its folder says, to the bit."""

import io
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedsparse.commands.all_commands import RERUN
from fedsparse.commands.checks import look
from fedsparse.commands.run import start
from fedsparse.commands.train_central import train_all
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.provenance import differences
from fedsparse.report.results import CENTRAL, Result, command_of, find_results, read_result
from fedsparse.telemetry.tags import WEIGHTS_HASH

FEW = 3
"""The rounds that are run again unless the user says how many."""
MEASURED = ("time/", "system/")
"""How the tags begin of what no two runs share: seconds and memory."""
SHOWN = 5
"""The most numbers of a round that are told."""

Row = Mapping[str, Any]


def verify(settings: Given, folder: str, rounds: str = "") -> None:
    """`main.py verify RUN_FOLDER`: the same settings, up to a round, in a scratch folder on the local engine.

    Raises:
        ConfigError: there is no such run, it has fewer rounds, or no run can have its bits again.
        RunFailed: the numbers are not the same; the differences between the two runs are printed before.
    """
    if other := sorted(settings.typed - RERUN):
        raise ConfigError(f"--{other[0]} has no effect on verify: the run has its own settings")
    result = run_in(folder)
    check_repeatable(Config.from_mapping(result["config"]), folder)
    wanted = rounds_to_compare(result, folder, rounds)
    recorded = [row for row in result["rounds"] if row["round"] <= wanted]
    print(f"{folder}: running {wanted} of its {result['rounds'][-1]['round']} rounds again", flush=True)
    try:
        again = rerun(result, {key: settings[key] for key in settings.typed}, wanted)
    except RunFailed as error:
        raise RunFailed(f"{folder}: its rerun failed: {error}") from None
    other_origin = tell_differences(result.get("provenance") or {}, again["provenance"])
    if difference := first_difference(recorded, again["rounds"]):
        hint = "see above" if other_origin else "yet code, versions, machine and data are the same"
        raise RunFailed(f"{folder}: {difference}; {hint}")
    hashed = all(WEIGHTS_HASH in row for row in recorded)
    what = "weights and measurements" if hashed else "measurements, without weights, of which it has no hashes,"
    print(f"{folder}: {what} of rounds up to {wanted} are the same, to the bit")


def run_in(folder: str) -> Result:
    """The run in a run folder or in the folder of a sweep's cell."""
    found, _ = find_results([folder])
    if len(found) > 1:
        raise ConfigError(f"{folder} has {len(found)} runs; name the folder of one")
    (result,) = found.values()
    return result


def check_repeatable(config: Config, folder: str) -> None:
    """Check that the random numbers of a run come from its seed.

    Raises:
        ConfigError: its noise for differential privacy came from the operating system.
    """
    if config.noise_by_clients or (config.noise_by_server and config.engine != "local"):
        raise ConfigError(f"{folder}: its noise for differential privacy is secret, so no run has the same bits again")


def rounds_to_compare(result: Result, folder: str, asked: str) -> int:
    """How many rounds to run again.

    Raises:
        ConfigError: ``asked`` is no number of rounds that the run has.
    """
    last = int(result["rounds"][-1]["round"]) if result["rounds"] else 0
    if last < 1:
        raise ConfigError(f"{folder} has no round to run again")
    if not asked:
        return min(FEW, last)
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= last):
        raise ConfigError(f"rounds = {asked}: should be a whole number from 1 to {last}, the rounds of {folder}")
    return int(asked)


def rerun(result: Result, own: Mapping[str, Any], until: int) -> Result:
    """Run the settings of a result again, up to a round, in a scratch folder.

    Args:
        own: settings that replace those of the result.
    """
    with TemporaryDirectory(prefix="fedsparse-verify-") as scratch:
        places = {"logdir": scratch, "outfile": "", "resume": "", "name": "verify"}
        quiet = {"engine": "local", "checkpoint-every": 0, "log-interval": 0}
        config = Config.from_mapping({**result["config"], **own, **places, **quiet}).absolute_paths()
        central = command_of(result) == CENTRAL
        look(config, "central" if central else "federated")
        with redirect_stdout(io.StringIO()):
            if central:
                train_all(config, until)
            else:
                start(config, until)
        (file,) = Path(scratch).glob("*/result.json")
        return read_result(file)


def first_difference(recorded: Sequence[Row], again: Sequence[Row]) -> str:
    """The first round that is not the same, and its numbers, in one line; empty where there is none."""
    found = {row["round"]: row for row in again}
    for old in recorded:
        new = found.get(old["round"], {})
        tags = [tag for tag in {**old, **new} if not tag.startswith(MEASURED) and old.get(tag) != new.get(tag)]
        if WEIGHTS_HASH not in old:  # a run of an older version
            tags = [tag for tag in tags if tag != WEIGHTS_HASH]
        if tags:
            told = [f"{tag} {old.get(tag, 'nothing')} then, {new.get(tag, 'nothing')} now" for tag in tags[:SHOWN]]
            return f"round {old['round']} is not the same: {'; '.join(told)}" + "; ..." * (len(tags) > SHOWN)
    return ""


def tell_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Print in what the two runs' origins differ; returns whether they do, or may."""
    if not before:
        print("it does not say where its numbers come from", file=sys.stderr)
        return True
    changed = differences(before, now)
    for name, (old, new) in changed.items():
        print(f"{name}: {_shown(old)} then, {_shown(new)} now")
    return bool(changed)


def _shown(value: Any) -> str:
    return "nothing" if value is None or value == [] else str(value)
