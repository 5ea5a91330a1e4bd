"""Find the two lines for somebody's Flower app: the codec that meets a budget of uplink and learns best.

    fedsparse tune PATH --times 100                      # so many times less uplink than whole updates
    fedsparse tune PATH --uplink 1MB --rounds 50         # in the training replies of 50 rounds together

1. A short run of the app as it is gives its uplink, its metric, and updates of a few clients.
2. Every compressor and preset codes these updates, at the best density that meets the budget. With error feedback and
   over all clients and rounds, the sum of what arrives has an error; the codecs with the smallest error go on.
3. They race in short runs of the app itself. The better half races again, over twice as many rounds: successive halving
   (Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016). So
   few candidates give an optimiser nothing to learn from.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fedsparse.commands.all_commands import TUNE
from fedsparse.commands.run_app import checked, shared
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.flower.app_project import read_project
from fedsparse.flower.app_trial import Trial, Updates, trial
from fedsparse.flower.candidates import Candidate, candidates
from fedsparse.telemetry.folder import create_run_folder
from fedsparse.telemetry.progress import human_bytes
from fedsparse.units import bytes_of

RACERS, SHORT = 4, 5
"""So many codecs race, over so many rounds at first."""
DECISIVE = {"loss": 1, "perplexity": 1, "acc": -1, "f1": -1, "auc": -1}
"""Parts of the names of metrics that can decide, best first; less (1) or more (-1) is better."""


class Metric(NamedTuple):
    """What decides the race: the name of a metric, and 1 where less is better, -1 where more is."""

    name: str
    sign: int

    def of(self, run: Trial) -> float:
        """The value in a run; NaN where there is none."""
        return run.metrics.get(self.name, math.nan)

    def loss(self, run: Trial) -> float:
        """What should be small; infinite for a run that diverged."""
        return self.sign * self.of(run) if math.isfinite(self.of(run)) else math.inf

    def row(self, line: str, run: Trial) -> str:
        """A run as a row of the table."""
        return f"| {line} | {human_bytes(run.per_round)} | {self.of(run):.4g} |"


def act(settings: Given, path: str, **own: str) -> None:
    """`main.py tune PATH`.

    Raises:
        ConfigError: a mistake of the user's.
        RunFailed: the app failed, or nothing meets the budget.
    """
    config, limit = checked("tune", TUNE, settings, own), budget(own)
    short = number("short", own.get("short", str(SHORT)))
    folder = create_run_folder(config.logdir, config.name or f"tune-{read_project(path).name}")
    updates, options = Updates(), shared(config, own)
    print(f"the short runs are in {folder}", flush=True)

    def run(rounds: int, candidate: Candidate | None = None) -> Trial:
        name, mod = (candidate.mod.config.compressor, candidate.mod) if candidate else ("whole", None)
        with quiet(folder / "output.txt"):
            return trial(path, mod, rounds, updates, logdir=folder, name=name, **options)

    whole = run(short)
    if not updates.layout or not updates.layout.parameters:
        raise RunFailed("no reply of the training has arrays of finite numbers that its message has, too")
    metric, ceiling = metric_of(whole), limit(whole)
    print(f"whole: {human_bytes(whole.per_round)} of uplink a round; the budget is {human_bytes(ceiling)}\n")
    racers = meeting(ceiling * whole.rounds / whole.replies, updates, whole.votes)
    for rounds in (short, 2 * short):
        whole = whole if rounds == short else run(rounds)
        print(f"\n| after {whole.rounds} rounds | uplink a round | {metric.name} |\n|---|---:|---:|")
        print(metric.row("whole", whole), flush=True)
        ranked = race(racers, partial(run, rounds), metric, ceiling)
        racers = [racer for racer, _ in ranked[: RACERS // 2]]
    print(f"\n{advice(*ranked[0], whole, metric, int(own.get('rounds', whole.rounds)))}")


def race(
    racers: Sequence[Candidate], run: Callable[[Candidate], Trial], metric: Metric, ceiling: float
) -> list[tuple[Candidate, Trial]]:
    """Run the app with each codec, and print the rows; those that meet the budget, the best first.

    Raises:
        RunFailed: there are none.
    """
    done = []
    for racer in racers:
        try:
            done.append((racer, run(racer)))
            print(metric.row(racer.line, done[-1][1]), flush=True)
        except RunFailed as error:
            print(f"| {racer.line} | | {error} |", flush=True)
    met = [(racer, of) for racer, of in done if 0 < of.per_round <= ceiling and metric.loss(of) < math.inf]
    if not met:
        raise RunFailed("in runs of the app, no codec met the budget and learned; allow more uplink")
    return sorted(met, key=lambda each: metric.loss(each[1]))


@contextmanager
def quiet(file: Path) -> Iterator[None]:
    """A context in which what the app prints goes into a file; Flower's log is in the run folder."""
    flower = logging.getLogger("flwr")
    before, flower.handlers = flower.handlers, []
    try:
        with file.open("a", encoding="utf-8") as output, redirect_stdout(output):
            yield
    finally:
        flower.handlers = before


def number(flag: str, text: str) -> int:
    """A whole number above 0.

    Raises:
        ConfigError: it is none.
    """
    if not (text.isdecimal() and int(text)):
        raise ConfigError(f"{flag} = {text}: should be a whole number above 0")
    return int(text)


def budget(own: Mapping[str, str]) -> Callable[[Trial], float]:
    """The bytes of uplink that a round may take, from the run whose updates are whole.

    Raises:
        ConfigError: the budget is missing, given twice, or wrong.
    """
    if ("uplink" in own) == ("times" in own):
        raise ConfigError("tune needs one budget: --times 100, or --uplink 1MB --rounds 50")
    if "uplink" in own and "rounds" not in own:
        raise ConfigError(f"--uplink {own['uplink']} is for a whole run: how many --rounds has it?")
    rounds = number("rounds", own.get("rounds", "1"))
    if "uplink" in own:
        of_run = bytes_of(own["uplink"], "--uplink")
        return lambda whole: of_run / rounds
    try:
        times = float(own["times"])
    except ValueError:
        times = 0.0
    if not 1 <= times < math.inf:
        raise ConfigError(f"times = {own['times']}: should be a number from 1, such as 100")
    return lambda whole: whole.per_round / times


def metric_of(run: Trial) -> Metric:
    """The server's own metrics come first, then those of evaluations, then those of training; a loss before others.

    Raises:
        RunFailed: no metric can decide.
    """
    for source in ("server", "evaluate", "train"):
        for part, sign in DECISIVE.items():
            for name in run.metrics:
                if name.startswith(f"{source}/") and part in name.lower():
                    return Metric(name, sign)
    known = ", ".join(run.metrics) or "none at all"
    raise RunFailed(f"no metric can decide, with {', '.join(DECISIVE)} in its name; the app has {known}")


def meeting(limit: float, updates: Updates, votes: bool) -> list[Candidate]:
    """The codecs with the smallest error among those whose payload meets the limit; prints all that do.

    Args:
        limit: bytes of a payload.
        updates: to be coded.
        votes: leave out the codecs that leave out coordinates, on which the strategy lets all clients vote.

    Raises:
        RunFailed: none does.
    """
    print("| on the updates | payload | error |\n|---|---:|---:|")
    found, least = [], math.inf
    for candidate in candidates(limit, updates):
        if votes and not candidate.sends_all:
            continue
        least = min(least, candidate.bytes)
        if candidate.bytes <= limit:
            found.append(candidate)
            print(f"| {candidate.line} | {human_bytes(candidate.bytes)} | {candidate.error:.3f} |", flush=True)
    if not found:
        raise RunFailed(
            f"nothing{' with every coordinate, as the strategy needs,' * votes} meets the budget, "
            f"{human_bytes(limit)} a reply; the smallest payload has {human_bytes(least)}"
        )
    return sorted(found, key=lambda candidate: candidate.error)[:RACERS]


def advice(best: Candidate, run: Trial, whole: Trial, metric: Metric, planned: int) -> str:
    """The two lines, and what was measured with them."""
    more = ", every_coordinate=True" * whole.votes
    uplink, of_whole = (human_bytes(each.per_round * planned) for each in (run, whole))
    return (
        f"app = ClientApp(mods=[{best.line}])  # the client: first in the list of mods\n"
        f"strategy = CompressedStrategy(...{more})  # the server: around your strategy\n\n"
        f"{metric.name} after {run.rounds} rounds, one seed: {metric.of(run):.4g}; {metric.of(whole):.4g} whole\n"
        f"uplink of {planned} rounds: {uplink}; {of_whole} whole, {whole.per_round / run.per_round:.3g} times more"
    )
