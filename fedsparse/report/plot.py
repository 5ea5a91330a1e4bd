"""Plots of finished runs, made of matplotlib's objects, without pyplot and its global state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from fedsparse.report.results import ENDED, Result, headline_of
from fedsparse.report.table import Row, columns
from fedsparse.telemetry.progress import human_bytes
from fedsparse.telemetry.tags import Headline

# Okabe and Ito's colours differ for every kind of colour vision; markers and dashes tell the lines apart as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
SIZE = (5.6, 4.0)
"""Inches of one pair of axes."""
TRADE_OFFS = ("density", "rank", "threshold", "sparsity", "upload-sparsity")
"""Settings that trade bytes for accuracy. Over the uplink, one line joins points that differ only in these settings."""

Group = tuple[str, list[Row]]


def plot_rows(rows: Sequence[Row], x: str = "uplink", lines: Sequence[str] = (), panels: Sequence[str] = ()) -> Figure:
    """The headline with its confidence intervals over one setting, or over the uplink.

    Args:
        rows: of a table; only those with the headline of the first are drawn.
        x: a setting, or ``uplink``. Rows without this setting are baselines, drawn as horizontal lines.
        lines: settings; each combination of their values has a line. Empty means all settings but ``x`` and
            ``panels``, and over the uplink also without ``TRADE_OFFS``.
        panels: settings; each combination of their values has a pair of axes.
    """
    headline = rows[0].headline
    rows = [row for row in rows if row.headline == headline]
    parts = _by(rows, panels)
    figure = Figure(figsize=(SIZE[0] * len(parts) + 2.2, SIZE[1]), dpi=150, layout="constrained")
    left = [key for key in columns(rows) if key not in (x, *panels)]
    lines = lines or [key for key in left if x != "uplink" or key not in TRADE_OFFS]
    lines = [*lines, *(key for key in left if key == ENDED and key not in lines)]
    names = [name for name, _ in _by(rows, lines)]
    handles = {}
    for axes, (_, part) in zip(np.ravel(figure.subplots(1, len(parts), sharey=True)), parts, strict=True):
        axes.set_title(_named({key: part[0].settings[key] for key in panels if key in part[0].settings}))
        for name, group in _by(part, lines):
            handles[name] = _line(axes, group, x, names.index(name))
        _dress(axes, x, headline)
    figure.axes[0].set_ylabel(headline.name)
    if headline.form.endswith("%"):
        low, high = figure.axes[0].get_ylim()
        figure.axes[0].set_ylim(max(low, 0), min(high, 1))  # the interval of two seeds may reach beyond 0 and 1
    if names != [""]:
        ordered = [name for name in names if name in handles]
        title = ", ".join(lines)
        figure.legend([handles[n] for n in ordered], ordered, loc="outside right center", frameon=False, title=title)
    return figure


def draw_curves(
    axes: Axes, runs: Iterable[tuple[Mapping[str, Any], Result]], over: Literal["uplink", "simulated"] = "uplink"
) -> None:
    """The headline of each run over its course; runs that differ only in their seed share a colour.

    Args:
        runs: the settings that distinguish each run, and its result; only those with the headline of the first are
            drawn.
        over: the bytes uploaded so far, or the seconds on the simulated clock.
    """
    tag = {"uplink": "comm/uplink_total", "simulated": "time/simulated_total"}[over]
    handles: dict[str, Line2D] = {}
    styles: dict[str, int] = {}
    runs = list(runs)
    headline = headline_of(runs[0][1])
    for settings, result in runs:
        if headline_of(result) != headline:
            continue
        name = _named({key: value for key, value in settings.items() if key != "seed"})
        style = _style(styles.setdefault(name, len(styles)))
        rows = [r for r in result["rounds"] if headline.tag in r and r.get(tag, 0) > 0]
        if rows:
            x, values = zip(*((r[tag], float(r[headline.tag])) for r in rows), strict=True)
            (handles[name],) = axes.plot(x, values, **style, markevery=[-1])
    _dress(axes, over, headline)
    axes.set_ylabel(headline.name)
    if any(handles):
        axes.legend(handles.values(), handles.keys(), frameon=False, loc="best", fontsize="small")


def _line(axes: Axes, group: Sequence[Row], x: str, style: int) -> Any:
    """One line with error bars; for rows without x, a horizontal line with its interval as a band."""
    placed: list[tuple[Any, Row]] = [
        (row.measures["uplink-bytes"].mean if x == "uplink" else row.settings.get(x), row) for row in group
    ]
    placed = [(at, row) for at, row in placed if at is not None]
    if not placed:
        baseline = group[0].result
        line = axes.axhline(baseline.mean, **{**_style(style), "marker": ""})
        if not math.isnan(baseline.half_width):
            low, high = baseline.mean - baseline.half_width, baseline.mean + baseline.half_width
            axes.axhspan(low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        return line
    if all(_is_number(at) for at, _ in placed):
        placed = sorted(((float(at), row) for at, row in placed), key=lambda pair: pair[0])
    else:
        placed = [(str(at), row) for at, row in placed]
    results = [row.result for _, row in placed]
    half_widths = [0.0 if math.isnan(r.half_width) else r.half_width for r in results]
    return axes.errorbar(
        [at for at, _ in placed], [r.mean for r in results], yerr=half_widths, capsize=3, **_style(style)
    )


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        "linewidth": 1.6,
        "markersize": 5,
    }


def _dress(axes: Axes, x: str, headline: Headline) -> None:
    if headline.form.endswith("%"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif headline.less_is_better:  # a perplexity falls by factors
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("seconds on the simulated network" if x == "simulated" else x)
    if x == "uplink":
        axes.set_xlabel("uploaded by all clients")
        least, most = axes.dataLim.intervalx
        if most > 10 * least:  # because a shorter logarithmic axis may show no number
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: human_bytes(count)))
        axes.xaxis.set_minor_formatter("")


def _by(rows: Iterable[Row], keys: Sequence[str]) -> list[Group]:
    """The rows grouped by their values of ``keys``, in the order of the groups' first rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        words = (str(row.settings.get(key, "")) for key in keys)
        name = ", ".join(word for word in words if word)
        groups.setdefault(name, []).append(row)
    return list(groups.items())


def _named(settings: Mapping[str, Any]) -> str:
    words = (_word(key, value) for key, value in settings.items())
    return ", ".join(word for word in words if word)


def _word(key: str, value: Any) -> str:
    """A setting as a word of a legend; empty when it is off or ``auto``."""
    if value is True:
        return key
    if _is_number(value):
        return f"{key} {value}"
    return "" if value in (False, "auto") else str(value)


def _is_number(value: Any) -> bool:
    """Whether it is a number, or the text of one, as settings have it that may also be a distribution."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
