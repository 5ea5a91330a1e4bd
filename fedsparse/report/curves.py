"""The curves of a picture: a metric over bytes, rounds or seconds, one curve for all runs that differ in their seed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsparse.errors import ConfigError
from fedsparse.report.estimate import mean_and_half_width
from fedsparse.report.options import Over
from fedsparse.report.results import Result

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Quantity:
    """What stands on an x axis.

    Attributes:
        title: of the axis.
        values: the quantity after each round of a run; NaN where it was not measured.
        is_bytes: whether its unit is the byte.
    """

    title: str
    values: Callable[[Result], Iterable[float]]
    is_bytes: bool = False


@dataclass(frozen=True)
class Curve:
    """The mean of some runs over their course.

    Attributes:
        settings: those that the runs share.
        x: (n,) rising.
        mean: (n,) of the runs, at ``x``.
        half_width: (n,) of the 95% confidence interval; NaN for a single run.
        singles: the points of each run, (2, m) each.
    """

    settings: Mapping[str, Any]
    x: Floats
    mean: Floats
    half_width: Floats
    singles: tuple[Floats, ...]


def _of(*tags: str) -> Callable[[Result], Iterable[float]]:
    """The sum of these numbers of each round."""
    return lambda result: [sum(float(row.get(tag, np.nan)) for tag in tags) for row in result["rounds"]]


def _seconds(result: Result) -> Iterable[float]:
    return accumulate(float(row.get("time/round", 0.0)) for row in result["rounds"])


def _tokens(result: Result) -> Iterable[float]:
    """Samples, or tokens of text, on which clients have trained; NaN unless ``local-steps`` says how many."""
    config = result["config"]
    length = config.get("seq-length", 1) if any("eval/perplexity" in row for row in result["rounds"]) else 1
    steps = config.get("local-steps", 0) or np.nan
    a_client = steps * config.get("batch-size", 1) * length
    return accumulate(row.get("comm/clients", 0) * a_client for row in result["rounds"])


QUANTITIES: Mapping[Over, Quantity] = {
    "uplink": Quantity("uploaded by all clients", _of("comm/uplink_total"), is_bytes=True),
    "both": Quantity(
        "uploaded and downloaded by all clients", _of("comm/uplink_total", "comm/downlink_total"), is_bytes=True
    ),
    "rounds": Quantity("rounds", _of("round")),
    "simulated": Quantity("seconds on the simulated network", _of("time/simulated_total")),
    "seconds": Quantity("seconds", _seconds),
    "tokens": Quantity("samples or tokens trained on", _tokens),
}


def points(result: Result, over: Over, tag: str) -> Floats:
    """(2, m): the quantity, and the metric, of each round that has both; not those of the weights before round 1."""
    values = [float(row.get(tag, np.nan)) if row["round"] else np.nan for row in result["rounds"]]
    both = np.array([list(QUANTITIES[over].values(result)), values], np.float64)
    return both[:, np.isfinite(both).all(axis=0) & (both[0] > 0)]


def curves(runs: Iterable[tuple[Mapping[str, Any], Result]], over: Over, tag: str) -> list[Curve]:
    """A curve for all runs that differ only in ``seed``, in the order of the first runs.

    Where the seeds have other x, as bytes do that depend on the data, each run is interpolated linearly at the x of the
    first, as far as all of them reach.

    Args:
        runs: the settings that distinguish each run, and its result.
        over: what the x axis is.
        tag: of the metric.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[Floats]] = {}
    for settings, result in runs:
        key = tuple((k, v) for k, v in settings.items() if k != "seed")
        if (found := points(result, over, tag)).size:
            groups.setdefault(key, []).append(found)
    return [_curve(dict(key), singles) for key, singles in groups.items()]


def _curve(settings: Mapping[str, Any], singles: Sequence[Floats]) -> Curve:
    low, high = max(x[0] for x, _ in singles), min(x[-1] for x, _ in singles)
    x = np.unique(np.clip(singles[0][0], low, max(low, high)))
    mean, half_width = mean_and_half_width([np.interp(x, *single) for single in singles])
    return Curve(settings, x, mean, half_width, tuple(singles))


def measured_over(runs: Sequence[tuple[Mapping[str, Any], Result]], tag: str) -> list[Over]:
    """The quantities over which any of the runs has a curve."""
    return [over for over in QUANTITIES if any(points(result, over, tag).size for _, result in runs)]


def tag_of(name: str, runs: Sequence[tuple[Mapping[str, Any], Result]]) -> str:
    """The tag of a metric that is called by its tag, or by what follows ``eval/``.

    Raises:
        ConfigError: no run has measured it.
    """
    known = sorted({tag for _, result in runs for row in result["rounds"] for tag in row})
    for tag in (name, f"eval/{name}", f"train/{name}"):
        if tag in known:
            return tag
    raise ConfigError(f"--y {name}: no run has measured it; there are {', '.join(known)}")
