"""A table as Markdown, CSV and LaTeX."""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple

from fedsparse.report.columns import Column
from fedsparse.report.measures import last_evaluations
from fedsparse.report.style import named
from fedsparse.report.table import Row, headlines, settings_of

MOST_KEYS = 6
"""Rows that differ in more settings have these in one column, because the numbers would stand far to the right."""


def cells(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    """The header and the rows of a table for people, as text: settings, the number of seeds, and the columns."""
    keys = settings_of(rows)
    settings = [[str(row.settings.get(key, "")) for key in keys] for row in rows]
    if len(keys) > MOST_KEYS:
        keys, settings = ["settings"], [[named(row.settings)] for row in rows]
    header = [*keys, "seeds", *(column.title for column in columns)]
    numbers = [[str(row.seeds), *(column.text(row) for column in columns)] for row in rows]
    return [header, *(own + measured for own, measured in zip(settings, numbers, strict=True))]


def explanation(rows: Sequence[Row], evaluations: Iterable[int]) -> str:
    """A line that says how the results were computed.

    Args:
        evaluations: how many evaluations each run had.
    """
    counts = sorted({last_evaluations(n) for n in evaluations})
    many = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "no"
    last = "last evaluation" if many == "1" else f"last {many} evaluations"
    name = " and ".join(headline.name for headline in headlines(rows)).capitalize()
    return f"{name}: mean over each run's {last}, then mean ± 95% confidence interval over seeds."


def to_markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table for people."""
    header, *lines = cells(rows, columns)
    numbers = 1 + len(columns)
    ruler = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ruler, *escaped))


def to_csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table for programs: the mean of every measure and the half width of its interval, in full precision."""
    out = io.StringIO()
    names = [name for column in columns for name in (column.key, f"{column.key} ±")]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*settings_of(rows), "seeds", *names])
    for row in rows:
        numbers = [number for column in columns for number in astuple(row[column.key])]
        settings = [row.settings.get(key, "") for key in settings_of(rows)]
        writer.writerow([*settings, row.seeds, *("" if math.isnan(n) else repr(n) for n in numbers)])
    return out.getvalue()


def to_latex(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table for a paper; it needs the package booktabs."""
    header, *lines = ([_tex(cell) for cell in line] for line in cells(rows, columns))
    kinds = "l" * (len(header) - 1 - len(columns)) + "r" * (1 + len(columns))
    body = [f"{' & '.join(line)} \\\\" for line in lines]
    top = [f"\\begin{{tabular}}{{{kinds}}}", "\\toprule", f"{' & '.join(header)} \\\\", "\\midrule"]
    return "\n".join(["% \\usepackage{booktabs}", *top, *body, "\\bottomrule", "\\end{tabular}", ""])


SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


def _tex(text: str) -> str:
    """Text with what LaTeX would take for its own, and a sign for "times"."""
    text = re.sub(r"[\\~^±&%$#_{}]", lambda found: SPECIAL.get(found[0], f"\\{found[0]}"), text)
    return re.sub(r"(?<=\d) x$", r"\\,$\\times$", text)
