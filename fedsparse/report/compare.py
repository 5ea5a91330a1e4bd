"""Compares runs, killed and running ones too."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure, SubFigure

from fedsparse.errors import ConfigError
from fedsparse.report.axes import FILES, INCHES, fonts, new_figure
from fedsparse.report.columns import Column, columns, stages
from fedsparse.report.curves import measured_over, tag_of
from fedsparse.report.formats import explanation, to_csv, to_latex, to_markdown
from fedsparse.report.options import Options, Over
from fedsparse.report.plot import draw_curves
from fedsparse.report.results import Result, evaluations, headline_of, marked
from fedsparse.report.style import named
from fedsparse.report.table import Row, Settings, summarise


class Comparison:
    """Runs, each with the settings in which they differ.

    Args:
        runs: the settings that distinguish each run, and its result.
        options: what is asked of them.

    Attributes:
        baseline: the settings of the rows to which the others are compared; if none are asked for, compressor none.
        rows: of the table.
        columns: of the table.

    Raises:
        ConfigError: no run has what the options name.
    """

    def __init__(self, runs: Iterable[tuple[Mapping[str, Any], Result]], options: Options | None = None) -> None:
        self.options = options or Options()
        self.runs: list[tuple[dict[str, Any], Result]] = marked(runs)
        self.baseline: Settings = self.options.baseline
        if not self.baseline and any(settings.get("compressor") == "none" for settings, _ in self.runs):
            self.baseline = {"compressor": "none"}
        self.rows: list[Row] = summarise(self.runs, self.options.goals, self.baseline)
        self.columns: list[Column] = columns(self.rows, self.options.goals, self.baseline)

    @property
    def tag(self) -> str:
        """Of the y axis."""
        return tag_of(self.options.y, self.runs) if self.options.y else headline_of(self.runs[0][1]).tag

    @property
    def over(self) -> tuple[Over, ...]:
        """The x axes.

        Raises:
            ConfigError: no run has measured the quantity that was asked for.
        """
        measured = measured_over(self.runs, self.tag)
        for quantity in self.options.x:
            if quantity not in measured:
                raise ConfigError(f"--x {quantity}: no run has measured it; there are {', '.join(measured)}")
        return self.options.x or tuple(q for q in ("uplink", "simulated") if q in measured) or ("rounds",)

    def figure(self, parts: int = 1) -> tuple[Figure, Figure | SubFigure]:
        """The curves.

        Args:
            parts: 2 for an empty part beside the curves, on a screen.

        Returns:
            The figure, and its last part, which is empty unless there is only one.
        """
        options, over = self.options, self.over
        figure = new_figure(options.size, len(over), {named(settings) for settings, _ in self.runs})
        part: Figure | SubFigure = figure
        last: Figure | SubFigure = figure
        if parts == 2:
            inches = figure.get_figwidth()
            figure.set_size_inches(inches + INCHES["screen"][0], INCHES["screen"][1] + 0.6)
            part, last = figure.subfigures(1, 2, squeeze=False, width_ratios=[inches, INCHES["screen"][0]])[0]
        with rc_context(fonts(options.size)):
            draw_curves(part, self.runs, self.tag, over, options.scale, options.size, options.singles)
        return figure, last

    def save_pictures(self, folder: Path, name: str, figure: Figure) -> list[str]:
        """Save a figure in each of the formats; returns the names of the files."""
        names = [f"{name}.{form}" for form in self.options.formats]
        with rc_context({**FILES, **fonts(self.options.size)}):
            for file in names:
                figure.savefig(folder / file)
        return names

    def write_tables(self, folder: Path) -> str:
        """Write table.md, table.csv and table.tex into ``folder``; returns the first."""
        text = to_markdown(self.rows, self.columns)
        text += f"\n{explanation(self.rows, (len(evaluations(result)) for _, result in self.runs))}\n"
        parts = stages(self.rows)
        if parts:
            text += f"\nSeconds by part of a round, summed over clients:\n\n{to_markdown(self.rows, parts)}"
        (folder / "table.md").write_text(text, encoding="utf-8")
        (folder / "table.csv").write_text(to_csv(self.rows, [*self.columns, *parts]), encoding="utf-8")
        (folder / "table.tex").write_text(to_latex(self.rows, self.columns), encoding="utf-8")
        return text
