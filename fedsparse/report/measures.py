"""What a table says of one run."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsparse.report.results import Result, headline_of
from fedsparse.telemetry.tags import PARTS, seconds_by_part

MOST_EVALUATIONS = 10
TOTALS = ("uplink-bytes", "downlink-bytes", "seconds", "simulated-seconds")
"""What a run's summary has under the same names."""


@dataclass(frozen=True)
class Goals:
    """What the user asks of the runs.

    Attributes:
        target: of the headline; how many bytes reach it. None for no such question.
        budget: bytes of uplink; how good a run is that has sent no more. None for no such question.
    """

    target: float | None = None
    budget: float | None = None


NO_GOALS = Goals()


def last_evaluations(evaluated: int) -> int:
    """How many of a run's last evaluations are averaged to its result: a quarter of all evaluations, but 1 to 10.

    A single evaluation is too noisy, because under heterogeneous data accuracy changes by ten points between rounds.
    """
    return max(1, min(MOST_EVALUATIONS, evaluated // 4))


def settled(rounds: Iterable[Mapping[str, Any]], tag: str) -> float:
    """The mean of the last evaluations of these rounds; NaN when there is none of trained weights."""
    rows = [row for row in rounds if tag in row]
    last = rows[-last_evaluations(len(rows)) :]
    return float(np.mean([float(row[tag]) for row in last])) if last and last[-1]["round"] else math.nan


def measure(result: Result, goals: Goals = NO_GOALS) -> dict[str, float]:
    """The numbers of one run; NaN for one that the run lacks.

    Beside the headline under its name, these are ``TOTALS``; ``both-bytes``; ``uplink-ratio`` and ``both-ratio``, how
    many times fewer bytes than the same messages take with the whole model in float32; ``target-uplink-bytes`` and
    ``target-both-bytes``, sent until the first evaluation that reaches the target; ``at-budget``, the headline of the
    evaluations within the budget; and ``seconds-<part>``, summed over clients.
    """
    summary, headline = result["summary"], headline_of(result)
    found = {headline.name: settled(result["rounds"], headline.tag)} | {t: _number(summary.get(t)) for t in TOTALS}
    found["both-bytes"] = found["uplink-bytes"] + found["downlink-bytes"]
    dense_up, dense_down = (_number(summary.get(f"dense-{way}-bytes")) for way in ("uplink", "downlink"))
    found["uplink-ratio"] = _ratio(dense_up, found["uplink-bytes"])
    found["both-ratio"] = _ratio(dense_up + dense_down, found["both-bytes"])
    reached = _first_to_reach(result, goals.target)
    found["target-uplink-bytes"] = _number(reached.get("comm/uplink_total"))
    found["target-both-bytes"] = found["target-uplink-bytes"] + _number(reached.get("comm/downlink_total"))
    found["at-budget"] = _within_budget(result, goals.budget)
    parts = summary.get("seconds-by-part") or _seconds_by_part(result["rounds"])
    return found | {f"seconds-{part}": _number(parts.get(part)) for part in PARTS}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _ratio(dense: float, sent: float) -> float:
    return dense / sent if sent and dense else math.nan


def _first_to_reach(result: Result, target: float | None) -> Mapping[str, Any]:
    """The row of the first evaluation that is as good as the target; empty when there is none."""
    headline = headline_of(result)
    for row in result["rounds"]:
        if target is not None and headline.tag in row:
            value = float(row[headline.tag])
            if value <= target if headline.less_is_better else value >= target:
                return row
    return {}


def _within_budget(result: Result, budget: float | None) -> float:
    """The headline after the last round that ends within the budget; NaN if no trained weights do."""
    rows = (row for row in result["rounds"] if row.get("comm/uplink_total", math.inf) <= (budget or 0))
    return settled(rows, headline_of(result).tag)


def _seconds_by_part(rounds: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for row in rounds:
        for part, seconds in seconds_by_part(row).items():
            sums[part] = sums.get(part, 0.0) + float(seconds)
    return sums
