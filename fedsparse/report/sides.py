"""Two further pictures of a comparison: where the bytes go, and what is left out."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsparse.report.axes import EQUAL, bytes_axis, legend, line_style, metric_axis, new_figure, plain
from fedsparse.report.curves import curves
from fedsparse.report.options import Size
from fedsparse.report.plot import Runs
from fedsparse.report.style import COLOURS, Style, named, styles
from fedsparse.report.table import Row
from fedsparse.telemetry.progress import human_bytes


def bytes_picture(rows: Sequence[Row], size: Size) -> Figure:
    """Bytes up and down of each row, and the headline over the bytes of both ways."""
    rows = [row for row in rows if row.headline == rows[0].headline]
    names = [named(row.settings) or "all runs" for row in rows]
    figure = new_figure(size, 2, names)
    figure.set_figheight(max(figure.get_figheight(), 1 + 0.3 * len(rows)))
    bars, points = figure.subplots(1, 2)
    for offset, way, title, colour in ((-0.2, "uplink", "up", COLOURS[0]), (0.2, "downlink", "down", COLOURS[1])):
        counts = [row[f"{way}-bytes"].mean for row in rows]
        drawn = bars.barh(np.arange(len(rows)) + offset, counts, 0.36, color=colour, label=title)
        bars.bar_label(drawn, [human_bytes(count) for count in counts], padding=3, fontsize="x-small")
    bars.set_yticks(range(len(rows)), names)
    bars.invert_yaxis()
    bars.margins(x=0.25)
    bars.set_xlabel("bytes of all clients: up (above), down (below)")
    plain(bars)
    bytes_axis(bars)
    _points(points, rows, [row["both-bytes"].mean for row in rows], size)
    points.set_xlabel("bytes, both ways")
    bytes_axis(points, EQUAL)
    metric_axis(points, rows[0].headline.tag)
    return figure


def densities_picture(runs: Runs, rows: Sequence[Row], size: Size) -> Figure:
    """The headline over the share of weights that exist, and that share and the updates' over rounds."""
    rows = [row for row in rows if row.headline == rows[0].headline]
    names = [named(row.settings) for row in rows]
    figure = new_figure(size, 3, names)
    left, *others = figure.subplots(1, 3)
    looks = dict(zip(names, _looks(rows), strict=True))
    handles = {}
    kept: dict[str, dict[str, float]] = {}
    for axes, tag, title in zip(
        others,
        ("topology/density", "compress/density"),
        ("density of the weights", "density of the updates"),
        strict=True,
    ):
        for curve in curves(runs, "rounds", tag):
            name = named(curve.settings)
            if name in looks:
                style = line_style(looks[name], size)
                (handles[name],) = axes.plot(curve.x, curve.mean, **style, markevery=(0.0, 0.2))
                kept.setdefault(name, {})[tag] = float(curve.mean[-1])
        axes.set(xlabel="rounds", ylabel=title)
        plain(axes)
    _points(left, rows, [kept.get(name, {}).get("topology/density", math.nan) for name in names], size)
    left.set_xlabel("density of the weights at the end")
    metric_axis(left, rows[0].headline.tag)
    legend(figure, handles, size)
    return figure


def _looks(rows: Sequence[Row]) -> list[Style]:
    return styles([row.settings for row in rows])


def _points(axes: Axes, rows: Sequence[Row], at: Sequence[float], size: Size) -> None:
    """A point with its interval for each row."""
    for row, x, look in zip(rows, at, _looks(rows), strict=True):
        half_width = 0.0 if math.isnan(row.result.half_width) else row.result.half_width
        axes.errorbar([x], [row.result.mean], yerr=[half_width], capsize=3, **line_style(look, size))
    plain(axes)
