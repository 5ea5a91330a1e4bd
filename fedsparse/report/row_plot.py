"""The rows of a sweep's table over one of its settings, or over the bytes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsparse.report.axes import EQUAL, bytes_axis, legend, line_style, metric_axis, new_figure, plain
from fedsparse.report.curves import QUANTITIES
from fedsparse.report.results import ENDED
from fedsparse.report.style import Style, is_number, named, styles
from fedsparse.report.table import Row, settings_of

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
    left = [key for key in settings_of(rows) if key not in (x, *panels)]
    lines = lines or [key for key in left if x != "uplink" or key not in TRADE_OFFS]
    lines = [*lines, *(key for key in left if key == ENDED and key not in lines)]
    groups = _by(rows, lines)
    figure = new_figure("screen", len(parts), [name for name, _ in groups])
    looks = styles([{key: group[0].settings.get(key, "") for key in lines} for _, group in groups])
    style_of = {name: look for (name, _), look in zip(groups, looks, strict=True)}
    handles = {}
    for axes, (_, part) in zip(np.ravel(figure.subplots(1, len(parts), sharey=True)), parts, strict=True):
        axes.set_title(named({key: part[0].settings[key] for key in panels if key in part[0].settings}))
        for name, group in _by(part, lines):
            handles[name] = _line(axes, group, x, style_of[name])
        plain(axes)
        axes.set_xlabel(QUANTITIES["uplink"].title if x == "uplink" else x)
        if x == "uplink":
            bytes_axis(axes, EQUAL)
    metric_axis(figure.axes[0], headline.tag)
    legend(figure, {name: handles[name] for name in style_of if name in handles}, "screen")
    return figure


def _line(axes: Axes, group: Sequence[Row], x: str, look: Style) -> Any:
    """One line with error bars; for rows without x, a horizontal line with its interval as a band."""
    style = line_style(look, "screen")
    placed: list[tuple[Any, Row]] = [
        (row["uplink-bytes"].mean if x == "uplink" else row.settings.get(x), row) for row in group
    ]
    placed = [(at, row) for at, row in placed if at is not None]
    if not placed:
        baseline = group[0].result
        if not math.isnan(baseline.half_width):
            axes.axhspan(baseline.low, baseline.high, color=look.colour, alpha=0.12, linewidth=0)
        return axes.axhline(baseline.mean, **{**style, "marker": ""})
    if all(is_number(at) for at, _ in placed):
        placed = sorted(((float(at), row) for at, row in placed), key=lambda pair: pair[0])
    else:
        placed = [(str(at), row) for at, row in placed]
    results = [row.result for _, row in placed]
    half_widths = np.nan_to_num([result.half_width for result in results])
    return axes.errorbar([at for at, _ in placed], [r.mean for r in results], yerr=half_widths, capsize=3, **style)


def _by(rows: Iterable[Row], keys: Sequence[str]) -> list[Group]:
    """The rows grouped by their values of ``keys``, in the order of the groups' first rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = named({key: row.settings[key] for key in keys if key in row.settings})
        groups.setdefault(name, []).append(row)
    return list(groups.items())
