"""Compares finished runs: the metric of their task over the uploaded bytes, and a table."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.report.plot import SIZE, draw_curves
from fedsparse.report.results import (
    FEDERATED,
    Result,
    command_of,
    evaluations,
    find_results,
    marked,
    used,
    without_repeats,
)
from fedsparse.report.table import summarise, to_csv, to_markdown


class Comparison:
    """Runs, each with the settings in which they differ.

    Args:
        folders: run folders, sweep folders (all their cells), or result files.

    Attributes:
        runs: the settings that distinguish each run, and its result.
        notes: a line for each path and each run that is left out.

    Raises:
        ConfigError: a path that does not exist, no run at all, or a result whose settings are not valid.
    """

    def __init__(self, folders: Iterable[str | Path]) -> None:
        found, skipped = find_results(folders)
        found, repeated = without_repeats(found)
        self.notes = skipped + repeated
        self.configs: list[Config] = []
        settings = []
        for file, result in found.items():
            try:
                config = Config.from_mapping(result["config"])
            except ConfigError as error:
                raise ConfigError(f"{file}: {error}") from None
            command = command_of(result)
            settings.append({"command": command, **used(config, command)})
            if command == FEDERATED:  # a central run has no partition
                self.configs.append(config)
        keys = dict.fromkeys(key for s in settings for key in s)
        differing = [key for key in keys if len({repr(s[key]) for s in settings if key in s}) > 1]
        chosen = [{key: s[key] for key in differing if key in s} for s in settings]
        self.runs: list[tuple[dict[str, Any], Result]] = marked(zip(chosen, found.values(), strict=True))

    def shares_partition(self) -> bool:
        """Whether all runs of one seed have the same partition."""
        return len({repr((c.loading(), c.replace(seed=0).partitioning())) for c in self.configs}) == 1

    def figure(self, parts: int = 1) -> Figure:
        """The headline over uplink, and also over simulated seconds if a run has measured them.

        Args:
            parts: subfigures side by side; the first has the curves, and the rest are empty.
        """
        simulated = any("time/simulated_total" in row for _, result in self.runs for row in result["rounds"])
        width = parts + simulated
        figure = Figure(figsize=(SIZE[0] * width + 1.6, SIZE[1] + 0.6), dpi=150, layout="constrained")
        shares = [1 + simulated, *[1] * (parts - 1)]
        first = figure.subfigures(1, parts, squeeze=False, width_ratios=shares)[0, 0]
        axes = first.subplots(1, 1 + simulated, squeeze=False)[0]
        draw_curves(axes[0], self.runs)
        if simulated:
            draw_curves(axes[1], self.runs, over="simulated")
        return figure

    def save(self, folder: Path, figure: Figure) -> None:
        """Write table.md, table.csv and report.png into ``folder``, and print the table."""
        rows = summarise(self.runs)
        text = to_markdown(rows, (len(evaluations(result)) for _, result in self.runs))
        (folder / "table.md").write_text(text, encoding="utf-8")
        (folder / "table.csv").write_text(to_csv(rows), encoding="utf-8")
        figure.savefig(folder / "report.png")
        print(f"{text}\ntable.md, table.csv and report.png are in {folder}")
