"""The page and the picture of bench-compressors: error over bytes, a line a compressor."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fedsparse.report.axes import bytes_axis, legend, line_style, new_figure, plain
from fedsparse.report.page import legend_of, write
from fedsparse.report.style import Style, styles
from fedsparse.report.svg import Axis, Line, chart

Curve = tuple[Sequence[float], Sequence[float]]
"""The bytes of payloads, and their errors."""
X, Y = "payload, bytes", "relative error of one payload"


def plot(curves: Mapping[str, Curve], title: str) -> Figure:
    """Error over bytes; the names stand in a legend, so that none lies over another one."""
    figure = new_figure("screen", 1, curves)
    axes, handles = figure.add_subplot(), {}
    for (name, (x, y)), look in zip(curves.items(), _looks(curves), strict=True):
        (handles[name],) = axes.plot(x, y, **line_style(look, "screen"))
    axes.set(xlabel=X, ylabel=Y, title=title, ylim=(0, None))
    bytes_axis(axes)
    plain(axes)
    legend(figure, handles, "screen")
    return figure


def write_bench_page(
    folder: Path,
    source: str,
    curves: Mapping[str, Curve],
    tables: Sequence[tuple[str, Sequence[Sequence[str]]]],
    notes: str,
) -> None:
    """Write compressors.html.

    Args:
        source: what was compressed.
        curves: by compressor.
        tables: each with its title; a table's first row is its header.
        notes: what the columns mean.
    """
    lines = [
        Line(name, look, *map(np.array, (x, y, y, y)))
        for (name, (x, y)), look in zip(curves.items(), _looks(curves), strict=True)
    ]
    x = Axis.of(X, "bytes", np.array([at for line in lines for at in line.x]))
    y = Axis.of(Y, "number", np.array([error for line in lines for error in line.mean]))
    write(
        folder / "compressors.html",
        "compressors.html",
        source=source,
        tables=tables,
        legend=[legend_of(line.name, line.style) for line in lines],
        svg=chart("Error over bytes", lines, x, y),
        notes=notes,
    )


def _looks(curves: Mapping[str, Curve]) -> list[Style]:
    return styles([{"compressor": name} for name in curves])
