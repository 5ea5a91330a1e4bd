"""Tables in Markdown and CSV, with means and 95% confidence intervals of runs that differ only in their seed."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import stdtrit

from fedsparse.report.results import Result, evaluations, headline_of
from fedsparse.telemetry.progress import human_bytes
from fedsparse.telemetry.tags import Headline

Settings = Mapping[str, Any]
MEASURES = ("uplink-bytes", "downlink-bytes", "seconds", "simulated-seconds")
"""What every run measures beside its headline metric."""
MOST_EVALUATIONS = 10


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the half width of its 95% confidence interval (Student's t); NaN for a single seed."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        n = len(values)
        if n < 2:
            return cls(float(np.mean(values)), math.nan)
        return cls(float(np.mean(values)), float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n)))


UNKNOWN = Estimate(math.nan, math.nan)
"""Of a measure that a row lacks."""


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed: their settings, the number of seeds, and an Estimate of each measure.

    Attributes:
        headline: the metric of the runs' task, which is one of the measures.
    """

    settings: dict[str, Any]
    seeds: int
    measures: dict[str, Estimate]
    headline: Headline

    @property
    def result(self) -> Estimate:
        """The estimate of the headline."""
        return self.measures[self.headline.name]


def last_evaluations(evaluated: int) -> int:
    """How many of a run's last evaluations are averaged to its result: a quarter of all evaluations, but 1 to 10.

    A single evaluation is too noisy, because under heterogeneous data accuracy changes by ten points between rounds.
    """
    return max(1, min(MOST_EVALUATIONS, evaluated // 4))


def measure(result: Result) -> dict[str, float]:
    """The headline and the MEASURES of one run: total bytes, seconds; NaN for a measure that the run lacks."""
    evaluated = evaluations(result)
    last = evaluated[-last_evaluations(len(evaluated)) :]
    totals = {m: result["summary"].get(m) for m in MEASURES}
    return {headline_of(result).name: float(np.mean(last)) if last else math.nan} | {
        m: math.nan if value is None else value for m, value in totals.items()
    }


def summarise(runs: Iterable[tuple[Settings, Result]]) -> list[Row]:
    """One row for all runs that differ only in ``seed``, in the order of the rows' first runs.

    Args:
        runs: the settings that distinguish each run, and its result.
    """
    groups: dict[tuple[tuple[tuple[str, Any], ...], Headline], list[dict[str, float]]] = {}
    for settings, result in runs:
        key = tuple((k, v) for k, v in settings.items() if k != "seed")
        groups.setdefault((key, headline_of(result)), []).append(measure(result))
    return [
        Row(dict(key), len(found), {m: Estimate.of([f[m] for f in found]) for m in found[0]}, headline)
        for (key, headline), found in groups.items()
    ]


def headlines(rows: Sequence[Row]) -> list[Headline]:
    """The headlines of all rows, in the order in which they first appear: one, unless tasks are mixed."""
    return list(dict.fromkeys(row.headline for row in rows))


def columns(rows: Sequence[Row]) -> list[str]:
    """The settings of all rows, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row.settings))


def to_markdown(rows: Sequence[Row], evaluations: Iterable[int]) -> str:
    """The table for people, and a line that says how its results were computed.

    Args:
        evaluations: how many evaluations each run had.
    """
    forms = dict(zip(MEASURES, (_bytes, _bytes, _seconds, _seconds), strict=True))
    forms |= {headline.name: partial(_metric, headline) for headline in headlines(rows)}
    measures = _measured(rows)
    header = [*columns(rows), "seeds", *(m.removesuffix("-bytes").replace("-", " ") for m in measures)]
    lines = [header, ["---"] * len(columns(rows)) + ["---:"] * (1 + len(measures))]
    for row in rows:
        settings = [_plain(row.settings.get(key, "")) for key in columns(rows)]
        lines.append([*settings, str(row.seeds), *(forms[m](row.measures.get(m, UNKNOWN)) for m in measures)])
    counts = sorted({last_evaluations(n) for n in evaluations})
    many = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "no"
    last = "last evaluation" if many == "1" else f"last {many} evaluations"
    name = " and ".join(headline.name for headline in headlines(rows)).capitalize()
    note = f"{name}: mean over each run's {last}, then mean ± 95% confidence interval over seeds."
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\n{note}\n"


def to_csv(rows: Sequence[Row]) -> str:
    """The table for programs: the mean of every measure and the half width of its interval, in full precision."""
    out = io.StringIO()
    measures = _measured(rows)
    names = [name for m in measures for name in (m, f"{m} ±")]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns(rows), "seeds", *names])
    for row in rows:
        numbers = [n for m in measures for n in astuple(row.measures.get(m, UNKNOWN))]
        settings = [row.settings.get(key, "") for key in columns(rows)]
        writer.writerow([*settings, row.seeds, *("" if math.isnan(n) else repr(n) for n in numbers)])
    return out.getvalue()


def _measured(rows: Sequence[Row]) -> list[str]:
    """The headlines and the MEASURES, without the simulated seconds if no run measured them."""
    off = all(math.isnan(row.measures[MEASURES[-1]].mean) for row in rows)
    return [*(headline.name for headline in headlines(rows)), *MEASURES[: len(MEASURES) - off]]


def _bytes(count: Estimate) -> str:
    return human_bytes(count.mean)


def _seconds(seconds: Estimate) -> str:
    return "" if math.isnan(seconds.mean) else f"{seconds.mean:.1f}" + _plus_minus(seconds.half_width, ".1f")


def _metric(headline: Headline, result: Estimate) -> str:
    if math.isnan(result.mean):
        return ""
    return headline.shown(result.mean) + _plus_minus(
        *((100 * result.half_width, ".1f") if headline.form.endswith("%") else (result.half_width, headline.form))
    )


def _plus_minus(half_width: float, form: str) -> str:
    return "" if math.isnan(half_width) else f" ± {half_width:{form}}"


def _plain(value: Any) -> str:
    return str(value).replace("|", "\\|")
