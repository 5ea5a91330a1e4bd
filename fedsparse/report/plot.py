"""The curves of runs, made of matplotlib's objects, without pyplot and its global state."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from fedsparse.report.axes import bytes_axis, legend, line_style, metric_axis, plain, visible
from fedsparse.report.curves import QUANTITIES, Curve, curves
from fedsparse.report.options import Over, Scale, Size
from fedsparse.report.results import Result
from fedsparse.report.style import named, styles

Runs = Sequence[tuple[Mapping[str, Any], Result]]


def draw_curves(
    figure: Figure | SubFigure,
    runs: Runs,
    tag: str,
    over: Sequence[Over] = ("uplink",),
    scale: Scale = "auto",
    size: Size = "screen",
    singles: bool = False,
) -> None:
    """A metric over the course of runs: a line for those that differ only in their seed, with a band of 95%.

    Args:
        figure: an empty figure, or an empty part of one.
        runs: the settings that distinguish each run, and its result.
        tag: of the metric.
        over: quantities of the x axes, which stand side by side.
        singles: draw each run too, faintly.
    """
    names: dict[str, Any] = {}
    all_settings = list({named(settings): settings for settings, _ in runs}.values())
    looks = {named(s): look for s, look in zip(all_settings, styles(all_settings), strict=True)}
    for axes, quantity in zip(np.ravel(figure.subplots(1, len(over), sharey=True)), over, strict=True):
        drawn = curves(runs, quantity, tag)
        for place, curve in enumerate(drawn):
            name = named(curve.settings)
            # A marker every 0.12 of the picture. Each line begins at another place, so that lines that coincide show.
            every = (0.12 * place / len(drawn), 0.12) if len(curve.x) > 8 else None
            style = line_style(looks[name], size)
            (names[name],) = axes.plot(curve.x, curve.mean, **style, markevery=every)
            if singles:
                for single in curve.singles:
                    axes.plot(*single, color=style["color"], linewidth=0.6, alpha=0.35, zorder=1)
            if not np.isnan(curve.half_width).any():
                low, high = curve.mean - curve.half_width, curve.mean + curve.half_width
                axes.fill_between(curve.x, low, high, color=style["color"], alpha=0.13, linewidth=0)
        _dress(axes, quantity, drawn, singles)
    metric_axis(figure.axes[0], tag, scale)
    legend(figure, names, size)


def _dress(axes: Axes, over: Over, drawn: Sequence[Curve], singles: bool) -> None:
    plain(axes)
    axes.set_xlabel(QUANTITIES[over].title)
    if QUANTITIES[over].is_bytes:
        bytes_axis(axes)
    if over == "rounds":
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not drawn:
        return
    means = np.concatenate([curve.mean for curve in drawn])
    halves = np.concatenate([np.nan_to_num(curve.half_width) for curve in drawn])
    ends = np.concatenate([single[1] for curve in drawn for single in curve.singles]) if singles else means
    low, high = visible(ends, means - halves, means + halves)
    pad = 0.04 * (high - low) or abs(high) * 0.04 or 0.5
    axes.set_ylim(low - pad if low - pad > 0 or low <= 0 else low, high + pad)
