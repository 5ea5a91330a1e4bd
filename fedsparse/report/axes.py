"""Axes and legends of pictures: sizes, ticks that are right at any range, and no legend over data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from fedsparse.report.curves import Floats
from fedsparse.report.options import Scale, Size
from fedsparse.report.style import Style
from fedsparse.telemetry.tags import LESS_IS_BETTER

INCHES: Mapping[Size, tuple[float, float]] = {
    "screen": (5.6, 4.0),
    "one-column": (3.35, 2.1),
    "two-columns": (6.9, 2.2),
}
"""The size of a picture in a paper, without its legend, and on a screen that of a single pair of axes."""

FILES: Any = {
    "pdf.fonttype": 42,  # TrueType, because publishers refuse matplotlib's Type 3
    "svg.fonttype": "none",  # text that can be searched and read aloud
}
"""matplotlib's settings for files."""

LINES = 40
"""Most lines of a column of a legend beside the axes; the axes grow as high as it."""
FEW = 10
"""The least factor between the ends of a logarithmic axis of bytes; a shorter one may show no number."""
EQUAL = 0.05
"""Points whose bytes differ by a smaller share have the same budget, and their differences should not fill the axis."""
NARROWEST = 1e-4
"""Least room at the ends of an axis of bytes, as a share of its values: ticks then differ in six digits."""


def new_figure(size: Size, panels: int, names: Iterable[str] = ()) -> Figure:
    """An empty figure for some pairs of axes side by side.

    Args:
        names: of the lines; the figure has room for their legend, beside the axes or below them.
    """
    (width, height), names = INCHES[size], list(names)
    columns = legend_columns(size, names)
    if size == "screen":
        width = width * panels + columns * _inches_of_a_name(names, size)
        height = max(height, 0.2 * math.ceil(len(names) / max(columns, 1)))
    else:
        height += 0.18 * math.ceil(len(names) / columns)
    return Figure(figsize=(width, height), dpi=150 if size == "screen" else 300, layout="constrained")


def legend_columns(size: Size, names: Sequence[str]) -> int:
    """How many columns a legend has: beside the axes of a screen as few, and below those of a paper as many as fit."""
    if size == "screen":
        return math.ceil(len(names) / LINES)
    return max(1, min(len(names), int(INCHES[size][0] / _inches_of_a_name(names, size))))


def _inches_of_a_name(names: Sequence[str], size: Size) -> float:
    """The width of a column of a legend, about."""
    return 0.7 + (0.085 if size == "screen" else 0.065) * max(map(len, names), default=0)


def fonts(size: Size) -> Any:
    """matplotlib's settings for text that is as large as a paper's captions, or as a screen needs it."""
    return {"font.size": 10 if size == "screen" else 8}


def bytes_axis(axes: Axes, least: float = NARROWEST) -> None:
    """Ticks of the x axis as 500 kB, 1 MB; logarithmic where the data span a factor of ten.

    Args:
        least: data that span a smaller share of their values get so much room at both ends.
    """
    low, high = axes.dataLim.intervalx
    if low > 0 and high > FEW * low:
        axes.set_xscale("log")
        subs = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif 0 <= high - low < least * abs(high):  # not of axes without data, whose ends are infinite
        axes.set_xlim(low - least * abs(high), high + least * abs(high))
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))


def percent(tag: str) -> bool:
    """Whether a metric is a share that is shown in percent."""
    return tag.rpartition("/")[2] == "accuracy"


def falls_by_factors(tag: str, scale: Scale) -> bool:
    """Whether a metric stands on a logarithmic axis: as asked, or because it is a perplexity."""
    return scale == "log" or (scale == "auto" and tag.rpartition("/")[2] in LESS_IS_BETTER)


def metric_axis(axes: Axes, tag: str, scale: Scale = "auto") -> None:
    """The y axis of a metric: percent for an accuracy, logarithmic for a perplexity, which falls by factors."""
    if falls_by_factors(tag, scale):
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}"))
    if percent(tag):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1))  # the interval of two seeds may reach beyond 0 and 1
    axes.set_ylabel(tag.removeprefix("eval/"))


def plain(axes: Axes) -> None:
    """A light grid, and no frame but the two axes."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure | SubFigure, handles: Mapping[str, Any], size: Size) -> None:
    """A legend outside the axes: beside them on a screen, and below them in a paper, where width is scarce.

    Args:
        handles: the lines by name.
    """
    if set(handles) <= {""}:  # a single line needs no name
        return
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside right center" if size == "screen" else "outside lower center",
        ncols=legend_columns(size, list(handles)),
        frameon=False,
        fontsize="small" if size == "screen" else "medium",
    )


def line_style(style: Style, size: Size) -> dict[str, Any]:
    """A style as matplotlib's arguments."""
    small = size != "screen"
    return {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": style.dash,
        "linewidth": 1.1 if small else 1.6,
        "markersize": 3.5 if small else 5,
    }


def visible(means: Floats, lows: Floats, highs: Floats) -> tuple[float, float]:
    """The ends of a y axis: all means, and of the bands as much as leaves the means room."""
    least, most = float(means.min()), float(means.max())
    room = 0.6 * (most - least) or abs(most) * 0.05 or 1.0
    low, high = max(float(lows.min()), least - room), min(float(highs.max()), most + room)
    return (low if low > 0 or least <= 0 else min(least, 0.0)), high


def spaced(points: Floats, least: float) -> list[int]:
    """Which points of a line get a text beside them: those at least so far from the last one that does.

    Args:
        points: coordinates in the picture, shape ``(n, 2)``.
    """
    chosen = list[int]()
    for place, point in enumerate(points):
        if not chosen or math.dist(points[chosen[-1]], point) >= least:
            chosen.append(place)
    return chosen
