"""Networks with exits: the metric against the computation, a line over the thresholds of ``training.early_exit``."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from fedsparse.report.axes import fonts, legend, line_style, metric_axis, new_figure, plain, spaced
from fedsparse.report.curves import Floats
from fedsparse.report.estimate import mean_and_half_width
from fedsparse.report.options import Size
from fedsparse.report.style import named, styles
from fedsparse.telemetry.tags import Headline
from fedsparse.training.early_exit import BY_THRESHOLD

TITLE = "multiply-adds of a prediction"


class ExitCurve(NamedTuple):
    """The mean of runs that differ only in their seed.

    Attributes:
        settings: those that the runs share.
        thresholds: (n,) a prediction leaves where it is surer.
        x: (n,) multiply-adds of a prediction.
        mean: (n,) of the metric.
        half_width: (n,) of the metric's 95% confidence interval; NaN for a single run.
    """

    settings: Mapping[str, Any]
    thresholds: Sequence[float]
    x: Floats
    mean: Floats
    half_width: Floats


def exit_curves(runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], metric: str) -> list[ExitCurve]:
    """A curve for all runs with exits that differ only in ``seed``.

    Args:
        runs: the settings that distinguish each run, and its result.
        metric: of the task, such as ``accuracy``.
    """
    groups: dict[Any, list[Floats]] = {}
    for settings, result in runs:
        points = result["summary"].get(BY_THRESHOLD, [])
        if points and all(metric in point for point in points):
            shared = tuple((key, value) for key, value in settings.items() if key != "seed")
            key = shared, tuple(point["threshold"] for point in points)
            groups.setdefault(key, []).append(np.array([(p["multiply_adds"], p[metric]) for p in points]).T)
    found = []
    for (shared, thresholds), both in groups.items():
        mean, half_width = mean_and_half_width([values for _, values in both])
        found.append(ExitCurve(dict(shared), thresholds, np.mean([x for x, _ in both], axis=0), mean, half_width))
    return found


def exit_figure(drawn: Sequence[ExitCurve], headline: Headline, size: Size = "screen") -> Figure:
    """The curves, with the thresholds beside the marks of the first one."""
    names = [named(curve.settings) for curve in drawn]
    figure, handles = new_figure(size, 1, names), {}
    with rc_context(fonts(size)):
        axes = figure.subplots()
        for name, curve, look in zip(names, drawn, styles([curve.settings for curve in drawn]), strict=True):
            error = None if np.isnan(curve.half_width).any() else curve.half_width
            handles[name] = axes.errorbar(curve.x, curve.mean, yerr=error, capsize=2, **line_style(look, size))
        plain(axes)
        axes.set_xlabel(f"{TITLE}; beside marks, the threshold")
        axes.xaxis.set_major_formatter(EngFormatter())
        metric_axis(axes, headline.tag)
        axes.autoscale_view()  # matplotlib has put it off, and the next lines need the limits
        for first in drawn[:1]:
            points = np.stack([first.x, first.mean], axis=1)
            for place in spaced(axes.transData.transform(points), 0.2 * figure.dpi):
                text = f"{first.thresholds[place]:g}"
                axes.annotate(text, points[place], (0, 6), textcoords="offset points", fontsize="xx-small")
        legend(figure, handles, size)
    return figure


def figure_of_run(found: Mapping[str, Any], headline: Headline) -> Figure:
    """The curve of one run, of which ``training.early_exit`` has found this."""
    return exit_figure(exit_curves([({}, {"summary": found})], headline.name), headline)
