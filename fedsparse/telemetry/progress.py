"""Terminal output: a progress bar during a run (one line a round when there is no terminal), and a table at its end."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from fedsparse.telemetry.tags import Headline, seconds_by_part
from fedsparse.telemetry.time_line import time_lines

WRITTEN = "written to "
"""The last line of a run begins with this; the run folder follows."""
COLUMNS = 80
"""The longest line where there is no terminal."""


def human_bytes(count: float) -> str:
    """1234567 -> '1.23 MB' (decimal units, as networks count)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} TB"


def bar(what: str, console: Console) -> RichProgress:
    """Done of all, a note, and the time left; nothing without a terminal."""
    return RichProgress(
        TextColumn(what),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class Progress:
    """Round, headline, uplink so far and time left."""

    def __init__(self, rounds: int, headline: Headline, console: Console | None = None) -> None:
        self.console = console or Console()
        self.rounds, self.headline = rounds, headline
        self._last = ""  # the last evaluation, shown in rounds without one
        self._bar = bar("round", self.console)
        self._task = self._bar.add_task("", total=rounds, note="waiting for the first clients")
        self._bar.start()

    def show(self, round: int, row: Mapping[str, float]) -> None:
        """Show one finished round."""
        evaluated = ""
        if self.headline.tag in row:
            evaluated = f"{self.headline.name} {self.headline.shown(row[self.headline.tag], width='6')}"
            self._last = evaluated + "  "
        uplink = row["comm/uplink_total"]
        sent = f"uplink {human_bytes(uplink):>7}" if uplink else ""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=round, note=self._last + sent)
        else:
            loss = f"  loss {row['train/loss']:.3f}" if "train/loss" in row else ""
            seconds = f"  {row['time/round']:.2f} s" if "time/round" in row else ""
            evaluated = f"  {evaluated}" if evaluated else ""
            line = f"round {round:>{len(str(self.rounds))}}/{self.rounds}{loss}  {sent}{evaluated}{seconds}"
            print(line)
            kept, error = row.get("compress/density"), row.get("compress/threshold_error")
            for part in time_lines(seconds_by_part(row), kept, error, COLUMNS - 2) if "time/forward" in row else []:
                print(f"  {part}")
            sys.stdout.flush()

    def stop(self) -> None:
        """End the bar."""
        self._bar.stop()


def print_summary(
    summary: Mapping[str, Any],
    folder: Path,
    headline: Headline,
    others: Iterable[Headline] = (),
    console: Console | None = None,
) -> None:
    """The closing table: the task's metrics, uplink, ratio to dense, the line of times, and the run folder."""
    console = console or Console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    ended = "" if summary["ended"] == "complete" else f" ({summary['ended']})"
    table.add_row("rounds", f"{summary['rounds']}{ended} in {summary['seconds']:.1f} s")
    name = headline.name
    if summary[name] is not None:
        best = f"best {headline.shown(summary[f'best-{name}'])}" if summary["rounds"] else "before training"
        table.add_row(name, f"{headline.shown(summary[name])} ({best})")
        for other in (metric for metric in others if summary[metric.name] is not None):
            table.add_row(other.name.replace("_", " "), other.shown(summary[other.name]))
    for label, measured in summary.get("models", {}).items():
        table.add_row(f"{name} of {label}", headline.shown(measured[name]))
    ratio = f", {summary['uplink-ratio']:.1f} times below dense" if summary["uplink-ratio"] else ""
    if summary["downlink-bytes"]:  # 0 in central training, where nothing travels
        table.add_row("uplink", human_bytes(summary["uplink-bytes"]) + ratio)
        both = summary["uplink-bytes"] + summary["downlink-bytes"]
        below = ""
        if ratio:  # of a killed run the bytes of dense messages may not be known
            dense = summary["dense-uplink-bytes"] + summary["dense-downlink-bytes"]
            below = f", {dense / both:.1f} times below dense"
        table.add_row("downlink", human_bytes(summary["downlink-bytes"]))
        table.add_row("both ways", human_bytes(both) + below)
    if summary["epsilon"] is not None:
        told = summary["privacy"]
        table.add_row("privacy", f"epsilon {summary['epsilon']:.3g} at delta {told['delta']:.2g}, of client level")
    if summary["simulated-seconds"] is not None:
        table.add_row("on the simulated network", f"{summary['simulated-seconds']:.1f} s")
    console.print(table)
    for line in time_lines(summary["seconds-by-part"], summary["kept"], summary["threshold-error"], console.width):
        print(line)
    print(f"{WRITTEN}{folder}")  # without rich, which breaks long paths in a narrow terminal
