"""report.html: one file without a network, with a sortable table, charts, failures, and what makes each row again."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fedsparse.files import replaced
from fedsparse.report.axes import falls_by_factors, percent, visible
from fedsparse.report.columns import stages
from fedsparse.report.compare import Comparison
from fedsparse.report.curves import QUANTITIES, curves
from fedsparse.report.early_exits import TITLE, exit_curves
from fedsparse.report.failures import failures_of
from fedsparse.report.formats import cells, explanation
from fedsparse.report.layers import layer_densities
from fedsparse.report.options import Over
from fedsparse.report.reproduce import command, unusual
from fedsparse.report.results import ENDED, Result, evaluations
from fedsparse.report.style import COLOURS, Style, named, styles
from fedsparse.report.svg import Axis, Floats, Line, chart, colour
from fedsparse.report.table import Row

TEMPLATES = Path(__file__).with_name("page")
FURTHER = (
    ("compress/density", "Density of updates", 1.0),
    ("compress/threshold", "Threshold", 0.0),
    ("topology/density", "Density of the weights", 1.0),
)
"""Further curves over rounds: the tag, its title, and the value that tells nothing."""
MOST_LAYERS = 6
"""Settings whose layers are drawn."""


class Chart(NamedTuple):
    """A picture of the page, with a legend of its own where it has other lines than the table has rows."""

    title: str
    svg: Markup
    legend: tuple[Mapping[str, str], ...] = ()


def write_page(
    folder: Path,
    comparison: Comparison,
    files: Sequence[Path],
    partition: Figure | None = None,
    notes: Sequence[str] = (),
    refresh: int = 0,
) -> None:
    """Write report.html.

    Args:
        files: of each run, from which its result was read.
        partition: who holds what; None where that is not the same for all runs, or cannot be had.
        notes: what was left out.
        refresh: seconds after which a browser reads it anew; 0 for never.
    """
    write(
        folder / "report.html",
        "page.html",
        notes=notes,
        refresh=refresh,
        partition=_embedded(partition) if partition else "",
        **_content(comparison, files),
    )


def write(file: Path, template: str, **content: Any) -> None:
    """Write a page from a template, with style and script inside."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css, js = (Markup((TEMPLATES / name).read_text()) for name in ("page.css", "page.js"))
    page = environment.get_template(template).render(css=css, js=js, **content)
    with replaced(file, synced=False) as aside:  # because a browser may read the page just now
        aside.write_text(page, encoding="utf-8")


def _content(comparison: Comparison, files: Sequence[Path]) -> Mapping[str, Any]:
    """What the template shows."""
    rows, looks = comparison.rows, _looks(comparison.rows)
    firsts: dict[str, tuple[Path, Result]] = {}
    for (settings, result), file in zip(comparison.runs, files, strict=True):
        firsts.setdefault(named(settings), (file, result))
    failures = [
        (named(s, (ENDED,)) or "the run", failures_of(f, r)) for (s, r), f in zip(comparison.runs, files, strict=True)
    ]
    return {
        **_table(comparison),
        "settings": [legend_of(name, looks[name]) for name in (named(row.settings) for row in rows)],
        "explanation": explanation(rows, (len(evaluations(result)) for _, result in comparison.runs)),
        "charts": [_curve_chart(comparison, over, looks) for over in _shown(comparison)],
        "fronts": [_front(rows, looks, way, title) for way, title in (("uplink", "uplink"), ("both", "both ways"))]
        + _exit_charts(comparison, looks),
        "further": _further_charts(comparison, looks) + _layer_charts(firsts),
        "stages": _stage_bars(rows),
        "failures": [(name, found) for name, found in failures if found],
        "commands": [_command(row, *firsts[named(row.settings)]) for row in rows],
        "common": _common(comparison),
    }


def _table(comparison: Comparison) -> Mapping[str, Any]:
    """The columns' titles; and of each row, the settings, and the texts and sort keys of the numbers."""
    header, *lines = cells(comparison.rows, comparison.columns)
    words = len(header) - 1 - len(comparison.columns)
    rows = [
        (line[:words], [*zip(line[words:], _sort_keys(comparison, row), strict=True)])
        for row, line in zip(comparison.rows, lines, strict=True)
    ]
    return {"keys": header[:words], "header": header[words:], "rows": rows}


def _command(row: Row, _: Path, result: Result) -> tuple[str, list[int], str]:
    """The name of a row, its seeds, and the command for the first of them."""
    return named(row.settings) or "all runs", sorted(row.by_seed[row.headline.name]), command(result)


def _looks(rows: Sequence[Row]) -> dict[str, Style]:
    return {named(row.settings): look for row, look in zip(rows, styles([row.settings for row in rows]), strict=True)}


def legend_of(name: str, look: Style) -> Mapping[str, str]:
    """A line of a legend: its name, and the border in CSS that looks like it."""
    dash = {"-": "solid", ":": "dotted"}.get(look.dash, "dashed")
    return {"name": name, "line": f"{dash} {colour(look)}"}


def _sort_keys(comparison: Comparison, row: Row) -> list[str]:
    """What a column is sorted by: full precision, and nothing where a row lacks it."""
    values = [float(row.seeds), *(row[column.key].mean for column in comparison.columns)]
    return ["" if math.isnan(value) else repr(value) for value in values]


def _shown(comparison: Comparison) -> tuple[Over, ...]:
    """The x axes of the curves: those asked for, or else the usual ones and rounds."""
    return comparison.options.x or tuple(dict.fromkeys((*comparison.over, "rounds")))


def _lines(comparison: Comparison, over: Over, tag: str, looks: Mapping[str, Style]) -> list[Line]:
    found = []
    for curve in curves(comparison.runs, over, tag):
        half, name = np.nan_to_num(curve.half_width), named(curve.settings)
        found.append(Line(name, looks[name], curve.x, curve.mean, curve.mean - half, curve.mean + half))
    return found


def _curve_chart(comparison: Comparison, over: Over, looks: Mapping[str, Style]) -> Chart:
    quantity, tag = QUANTITIES[over], comparison.tag
    lines, name = _lines(comparison, over, tag, looks), tag.removeprefix("eval/")
    x = Axis.of(
        quantity.title, "bytes" if quantity.is_bytes else "count" if over == "rounds" else "number", _all(lines, "x")
    )
    y = _y_axis(name, lines, percent(tag), falls_by_factors(tag, comparison.options.scale))
    title = f"{name.capitalize()} over {over if over != 'simulated' else 'simulated seconds'}"
    return Chart(title, chart(title, lines, x, y))


def _all(lines: Sequence[Line], part: str) -> Floats:
    return np.concatenate([getattr(line, part) for line in lines]) if lines else np.zeros(0)


def _y_axis(title: str, lines: Sequence[Line], is_percent: bool = False, is_log: bool = False) -> Axis:
    ends = visible(*(_all(lines, part) for part in ("mean", "low", "high"))) if lines else (0.0, 1.0)
    return Axis.of(title, "percent" if is_percent else "number", np.array(ends), is_log)


def _further_charts(comparison: Comparison, looks: Mapping[str, Style]) -> list[Chart]:
    charts = []
    for tag, title, dull in FURTHER:
        lines = [line for line in _lines(comparison, "rounds", tag, looks) if (line.mean != dull).any()]
        if lines:
            x, y = Axis.of("rounds", "count", _all(lines, "x")), _y_axis(tag, lines)
            charts.append(Chart(title, chart(f"{title} over rounds", lines, x, y)))
    return charts


def _layer_charts(firsts: Mapping[str, tuple[Path, Result]]) -> list[Chart]:
    """The layers' densities in the first run of some settings, where a topology leaves out weights."""
    charts = list[Chart]()
    for name, (file, result) in firsts.items():
        if len(charts) == MOST_LAYERS or len(result["rounds"]) < 2:
            continue
        layers = {layer: found for layer, found in layer_densities(file.parent).items() if (found[1] != 1).any()}
        if layers:
            looks = styles([{"layer": layer} for layer in layers])
            lines = [Line(layer, look, x, y, y, y) for (layer, (x, y)), look in zip(layers.items(), looks, strict=True)]
            title = f"Density of each layer: {name}" if name else "Density of each layer"
            svg = chart(title, lines, Axis.of("rounds", "count", _all(lines, "x")), _y_axis("density", lines))
            charts.append(Chart(title, svg, tuple(legend_of(line.name, line.style) for line in lines)))
    return charts


def _front(rows: Sequence[Row], looks: Mapping[str, Style], way: str, title: str) -> Chart:
    """The headline over bytes, a point a row, and the line of those that no other row beats in both."""
    headline = rows[0].headline
    rows = [row for row in rows if row.headline == headline and row[f"{way}-bytes"].mean > 0]
    points, best = [], list[tuple[float, float]]()
    for row in sorted(rows, key=lambda row: row[f"{way}-bytes"].mean):
        at, result = row[f"{way}-bytes"].mean, row.result
        if math.isnan(result.mean):
            continue
        points.append(
            Line(
                named(row.settings),
                looks[named(row.settings)],
                *(np.array([v]) for v in (at, result.mean, result.low, result.high)),
            )
        )
        if not best or headline.best([best[-1][1], result.mean]) == result.mean != best[-1][1]:
            best.append((at, result.mean))
    x = Axis.of(f"bytes, {title}", "bytes", _all(points, "x"))
    y = _y_axis(headline.name, points, percent(headline.tag))
    steps = [corner for (at, value), (after, _) in pairwise(best) for corner in ((at, value), (after, value))]
    label = f"{headline.name.capitalize()} and {title}"
    return Chart(label, chart(label, points, x, y, [*steps, *best[-1:]]))


def _exit_charts(comparison: Comparison, looks: Mapping[str, Style]) -> list[Chart]:
    """The headline over the computation of networks with exits, with a mark for each threshold."""
    headline, lines = comparison.rows[0].headline, []
    for curve in exit_curves(comparison.runs, headline.name):
        half, name = np.nan_to_num(curve.half_width), named(curve.settings)
        marks = tuple(f"{threshold:g}" for threshold in curve.thresholds)
        lines.append(Line(name, looks[name], curve.x, curve.mean, curve.mean - half, curve.mean + half, marks=marks))
    if not lines:
        return []
    x, y = Axis.of(TITLE, "large", _all(lines, "x")), _y_axis(headline.name, lines, percent(headline.tag))
    label = f"{headline.name.capitalize()} and computation, by how sure an exit has to be"
    return [Chart(label, chart(label, lines, x, y))]


def _stage_bars(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, str, float, float]]]]:
    """Of each row, its parts: name, colour, seconds, and their share of the longest row's."""
    parts = stages(rows)
    totals = [sum(row[part.key].mean for part in parts if row.count(part.key)) for row in rows]
    longest = max(totals, default=0.0)
    return [
        (
            named(row.settings) or "all runs",
            [
                (part.title, look, row[part.key].mean, 100 * row[part.key].mean / longest)
                for part, look in zip(parts, COLOURS, strict=False)
                if row.count(part.key)
            ],
        )
        for row in rows
        if longest
    ]


def _common(comparison: Comparison) -> list[tuple[str, str]]:
    """The settings that all runs share and that are not at their defaults."""
    first, *others = (unusual(result) for _, result in comparison.runs)
    return [(key, str(value)) for key, value in first.items() if all(other.get(key) == value for other in others)]


def _embedded(figure: Figure) -> str:
    figure.savefig(out := io.BytesIO(), format="png", dpi=100)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
