"""Charts of the page, as SVG: lines with bands, and points with error bars. All text in them is escaped.

A chart says in ``data-`` attributes how its pixels became numbers, so that the page's script can tell what lies under
the pointer, and nothing is written twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import EngFormatter, Locator, LogLocator, MaxNLocator
from numpy.typing import NDArray

from fedsparse.report.axes import NARROWEST, spaced
from fedsparse.report.style import BASELINE, Style

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 12, 48
POINTS = 3000
"""Most points of all lines of a chart together, so that a page of hundreds of lines stays small."""
ROOM_FOR_MARK = 26
"""From one mark of a line to the next one that has a text."""
DASHES = {"-": "", "--": "6 3", ":": "2 3", "-.": "7 3 2 3"}


@dataclass(frozen=True)
class Line:
    """A line of a chart, or a single point; ``low`` and ``high`` are the ends of its intervals.

    Attributes:
        marks: the text beside each point; empty for a line without marks.
    """

    name: str
    style: Style
    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    marks: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Axis:
    """Of a chart.

    Attributes:
        form: ``bytes``, ``percent``, ``count``, ``number``, or ``large`` for a number of thousands or millions.
    """

    title: str
    form: str
    low: float
    high: float
    is_log: bool = False

    @classmethod
    def of(cls, title: str, form: str, values: Floats, is_log: bool | None = None) -> "Axis":
        """An axis that shows all values; bytes that span a factor of ten are on a logarithmic one.

        Args:
            is_log: None to decide by the values.
        """
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        is_log = low > 0 and (is_log or (is_log is None and form == "bytes" and high > 10 * low))
        pad = 0.0 if is_log else 0.03 * (high - low) or max(abs(high) * 0.05, form == "count") or 0.5
        pad = max(pad, NARROWEST * abs(high)) if form == "bytes" else pad
        low, high = (low / 1.1, high * 1.1) if is_log else (low - pad if low < 0 or low > pad else 0.0, high + pad)
        return cls(title, form, low, min(high, 1.0) if form == "percent" else high, bool(is_log))

    def share(self, values: Floats) -> Floats:
        """Where values lie, from 0 at the low end to 1 at the high one; values beyond lie at the ends."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        values = np.log(np.maximum(values, self.low)) if self.is_log else values
        return np.clip((values - low) / (high - low), 0, 1)

    def ticks(self) -> list[float]:
        """Round numbers between the ends."""
        subs = (1.0,) if self.high > 100 * self.low else (1.0, 2.0, 5.0)
        locator: Locator = LogLocator(subs=subs) if self.is_log else MaxNLocator(5, integer=self.form == "count")
        return [t for t in locator.tick_values(self.low, self.high) if self.low <= t <= self.high]

    def text(self, value: float) -> str:
        """A tick's label."""
        if self.form in ("bytes", "large"):
            return EngFormatter(unit="B" if self.form == "bytes" else "")(value)
        return f"{100 * value:.6g}%" if self.form == "percent" else f"{value:.6g}"


def chart(label: str, lines: Sequence[Line], x: Axis, y: Axis, front: Sequence[tuple[float, float]] = ()) -> Markup:
    """A chart of lines; lines of a single point are points with error bars.

    Args:
        label: what the chart shows, for those who cannot see it.
        front: the corners of a further, grey line.
    """
    parts = [_frame(x, y)]
    if front:
        corners = _points(x, y, np.array([at for at, _ in front]), np.array([value for _, value in front]))
        parts.append(Markup('<polyline class="front" points="{}"/>').format(_text(corners)))
    parts += [_drawn(line, number, x, y, POINTS // max(len(lines), 1)) for number, line in enumerate(lines)]
    scales = Markup(" ").join(
        Markup('data-{0}="{1!r} {2!r} {3} {4}"').format(
            name, axis.low, axis.high, "log" if axis.is_log else "", axis.form
        )
        for name, axis in (("x", x), ("y", y))
    )
    box = f"{LEFT} {WIDTH - RIGHT} {HEIGHT - BOTTOM} {TOP}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" tabindex="0" aria-label="{}" data-box="{}" {}>{}</svg>'
    ).format(WIDTH, HEIGHT, label, box, scales, Markup("").join(parts))


def _points(x: Axis, y: Axis, at: Floats, values: Floats) -> Floats:
    """(n, 2) coordinates in the picture."""
    right = LEFT + x.share(at) * (WIDTH - LEFT - RIGHT)
    down = HEIGHT - BOTTOM - y.share(values) * (HEIGHT - TOP - BOTTOM)
    return np.stack([right, down], axis=1)


def _text(points: Floats) -> str:
    return " ".join(f"{px:.1f},{py:.1f}" for px, py in points)


def _drawn(line: Line, number: int, x: Axis, y: Axis, most: int) -> Markup:
    """A line with its band, or a point with its error bar."""
    known = np.flatnonzero(np.isfinite(line.mean) & np.isfinite(line.x))
    known = (
        known[np.unique(np.linspace(0, len(known) - 1, min(len(known), max(most, 8))).astype(int))]
        if len(known)
        else known
    )
    at = line.x[known]
    mean, low, high = (_points(x, y, at, values[known]) for values in (line.mean, line.low, line.high))
    parts = []
    if len(known) == 1:
        (px, py), (_, bottom), (_, top) = mean[0], low[0], high[0]
        parts.append(Markup('<path class="bar" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(px, bottom, top))
        parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(px, py))
    elif not np.array_equal(low, high):
        parts.append(Markup('<polygon points="{} {}"/>').format(_text(low), _text(high[::-1])))
    if line.marks:
        parts += [Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(*point) for point in mean]
        for place in spaced(mean, ROOM_FOR_MARK):
            px, py = mean[place]
            mark = line.marks[known[place]]
            parts.append(Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(px, py - 6, mark))
    dash = Markup(' stroke-dasharray="{}"').format(DASHES[line.style.dash]) if DASHES[line.style.dash] else ""
    parts.append(Markup('<polyline points="{}"{}/>').format(_text(mean), dash))
    return Markup('<g class="line" data-line="{}" data-name="{}" style="color:{}">{}</g>').format(
        number, line.name, colour(line.style), Markup("").join(parts)
    )


def colour(style: Style) -> str:
    """A CSS colour; the black of a baseline is the text's, which is light in the dark."""
    return "var(--text)" if style.colour == BASELINE else style.colour


def _frame(x: Axis, y: Axis) -> Markup:
    """Ticks, a light grid and titles."""
    parts = []
    for tick in x.ticks():
        px = LEFT + float(x.share(np.array(tick))) * (WIDTH - LEFT - RIGHT)
        parts.append(f'<path class="grid" d="M{px:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(x.text(tick))}</text>'
        )
    for tick in y.ticks():
        py = HEIGHT - BOTTOM - float(y.share(np.array(tick))) * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<path class="grid" d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{escape(y.text(tick))}</text>')
    middle = (LEFT + WIDTH - RIGHT) // 2, (TOP + HEIGHT - BOTTOM) // 2
    parts.append(f'<text x="{middle[0]}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text transform="translate(12 {middle[1]}) rotate(-90)" text-anchor="middle">{escape(y.title)}</text>'
    )
    parts.append(f'<path class="axes" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    return Markup("".join(parts))
