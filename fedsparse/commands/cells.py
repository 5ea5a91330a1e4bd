"""The cells of a sweep, each a process of its own: several at once, and only those that are not finished.

A cell's folder holds ``settings.yaml``, ``log.txt``, ``result.json`` and the run folder. A cell is finished when any
folder of the sweep holds a complete result of its settings, whatever that folder is called; likewise one that was cut
short goes on. What the settings of an older version lack counts as its default.
"""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from rich.console import Console

from fedsparse.config import Config
from fedsparse.config.agreement import check_agreement
from fedsparse.config.run_settings import core_count
from fedsparse.config.yaml_file import read_yaml
from fedsparse.device import resolve_device
from fedsparse.errors import ConfigError, RunFailed, reason
from fedsparse.files import locked
from fedsparse.report.compare import Comparison
from fedsparse.report.grid import Cell, Sweep
from fedsparse.report.measures import measure
from fedsparse.report.page import write_page
from fedsparse.report.results import FEDERATED, Result, command_of, headline_of, identity, is_complete, read_result
from fedsparse.report.row_plot import plot_rows
from fedsparse.telemetry.progress import bar, human_bytes

GRACE = 20
"""Seconds that an interrupted cell gets to save what it measured."""


@dataclass
class _Child:
    """A cell that is running: its process, which leads a process group of its own, and when it began."""

    cell: Cell
    folder: Path
    process: "subprocess.Popen[bytes]"
    began: float = field(default_factory=time.monotonic)


def run_sweep(sweep: Sweep, command: Sequence[str], jobs: int | Literal["auto"]) -> None:
    """Run the cells that are not finished, then write the table and the plot of all that are.

    Args:
        sweep: its cells name the log folder; results go to ``<logdir>/<sweep name>/``.
        command: what runs a cell, when `--config FILE` is added to it.
        jobs: cells at once; auto is one a core, or a single one on a GPU.

    Raises:
        RunFailed: some cells failed; the others went on, and are in the table. Or the sweep is running already.
        KeyboardInterrupt: after every cell's process has ended; finished cells are kept and the table is written.
    """
    folder = Path(sweep.cells[0].config.logdir) / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _run_and_report(sweep, folder, command, jobs)


def _run_and_report(sweep: Sweep, folder: Path, command: Sequence[str], jobs: int | Literal["auto"]) -> None:
    done = finished(folder)
    todo = [cell for cell in sweep.cells if identity(cell.config.flat()) not in done]
    if skipped := len(sweep.cells) - len(todo):
        print(f"{skipped} of {len(sweep.cells)} cells are finished already", flush=True)
    failures: list[str] = []
    try:
        if todo:
            failures = _run_cells(todo, folder, command, min(job_count(jobs, todo[0]), len(todo)))
    finally:
        write_report(sweep, folder)
    if failures:
        raise RunFailed(f"{len(failures)} of {len(sweep.cells)} cells failed; {failures[0]}")


def finished(folder: Path) -> dict[object, tuple[Path, Result]]:
    """The complete results in a sweep's folder, each with its file, by ``identity`` of their settings."""
    found: dict[object, tuple[Path, Result]] = {}
    for path in sorted(folder.glob("*/result.json")):
        with suppress(ConfigError):  # half a file, or somebody else's: as good as none
            result = read_result(path)
            if command_of(result) == FEDERATED and is_complete(result):
                found[identity(result["config"])] = path, result
    return found


def job_count(jobs: int | Literal["auto"], cell: Cell) -> int:
    """Cells at once: as asked; else one a core, or one where they share a GPU, whose memory is not known here."""
    if jobs != "auto":
        return jobs
    cores = core_count() // cell.config.threads
    return max(1, cores) if resolve_device(cell.config.device).type == "cpu" else 1


def write_report(sweep: Sweep, folder: Path) -> None:
    """Write tables, pictures and the page of the finished cells into ``folder``, and print the table."""
    done = finished(folder)
    cells = [(cell.chosen, *done[key]) for cell in sweep.cells if (key := identity(cell.config.flat())) in done]
    if not cells:
        return
    comparison = Comparison((chosen, result) for chosen, _, result in cells)
    print(f"\n{comparison.write_tables(folder)}")
    plot_rows(comparison.rows, **sweep.plot).savefig(folder / "plot.png")
    comparison.save_pictures(folder, "curves", comparison.figure()[0])
    write_page(folder, comparison, [file for _, file, _ in cells])
    written = "report.html, plot.png, curves.png, table.md, table.csv and table.tex"
    print(f"{len(cells)} of {len(sweep.cells)} cells; {written} are in {folder}")


def _run_cells(cells: Sequence[Cell], folder: Path, command: Sequence[str], jobs: int) -> list[str]:
    """Run the cells, ``jobs`` at once; one line a failure."""
    waiting, running, failures = deque(cells), list[_Child](), list[str]()
    with bar("cells", Console(highlight=False, markup=False, emoji=False)) as progress:
        task = progress.add_task("", total=len(cells), note="")
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_start(waiting.popleft(), folder, command))
                for child in [c for c in running if c.process.poll() is not None]:
                    running.remove(child)
                    line, failed = _outcome(child)
                    failures += [line] * failed
                    progress.advance(task)
                    count = int(progress.tasks[0].completed)
                    progress.console.print(f"cell {count:>{len(str(len(cells)))}}/{len(cells)}  {line}", soft_wrap=True)
                progress.update(task, note=f"{len(running)} running" + f", {len(failures)} failed" * bool(failures))
                time.sleep(0.05)
        finally:
            _stop(running)
    return failures


def _start(cell: Cell, folder: Path, command: Sequence[str]) -> _Child:
    home = folder / cell.name
    home.mkdir(exist_ok=True)
    outfile = home / "result.json"
    outfile.unlink(missing_ok=True)  # of an attempt that did not end well
    config = cell.config.replace(logdir=str(home), outfile=str(outfile), name="run", workers=1)
    (home / "settings.yaml").write_text(yaml.safe_dump(config.flat(), sort_keys=False))
    whole = [*command, "--config", str(home / "settings.yaml")]
    if cut_short := _cut_short(folder, config):
        whole += ["--resume", str(cut_short)]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (home / "log.txt").open("wb") as log:
        # A group of its own: Ctrl-C in the terminal reaches the sweep alone, which passes it on exactly once. Not a
        # session of its own: on Linux that would be scheduled for itself, whatever `nice` the sweep was started with.
        process = subprocess.Popen(
            whole,
            stdin=subprocess.PIPE,  # ends with this process, however it ends, and the cell with it
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            env=os.environ | {"PYTHONPATH": paths, "FEDSPARSE_ENDS_WITH_STDIN": "1"},
        )
    return _Child(cell, home, process)


def _cut_short(folder: Path, config: Config) -> Path | None:
    """The newest run of these settings in a sweep's folder that has a checkpoint to go on from.

    It may be in a folder of another name than the cell's, which ends in a hash of all settings: an older version has
    fewer of them.
    """
    checkpoints = {file.parents[1] for file in folder.glob("*/*/checkpoint/*.json")}
    for run in sorted(checkpoints, key=lambda run: run.name, reverse=True):
        with suppress(ConfigError):
            before = read_yaml(run / "config.yaml")
            check_agreement(before, config.absolute_paths(), run)
            if identity(before) == identity(config.flat()):  # a run of fewer rounds may be another cell's
                return run
    return None


def _outcome(child: _Child) -> tuple[str, bool]:
    """One line about a cell that has ended, and whether it failed."""
    seconds = time.monotonic() - child.began
    if child.process.returncode == 0:
        result = read_result(child.folder / "result.json")
        measured, headline = measure(result), headline_of(result)
        reached = f"{headline.name} {headline.shown(measured[headline.name])}"
        uplink = human_bytes(measured["uplink-bytes"])
        return f"{child.folder.name}: {reached}, uplink {uplink}, {seconds:.0f} s", False
    why = reason((child.folder / "log.txt").read_text(errors="replace"), child.process.returncode)
    return f"{child.folder.name} failed: {why} (all of it: {child.folder / 'log.txt'})", True


def _stop(children: Sequence[_Child]) -> None:
    """Interrupt them as Ctrl-C would; whatever is left after the grace is killed, with all its processes."""
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGINT)
    deadline = time.monotonic() + GRACE
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
