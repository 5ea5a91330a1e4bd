"""Run a grid of settings: each cell is a `main.py run` in a process of its own. A repeated sweep skips finished cells.

A cell's folder holds ``settings.yaml``, ``log.txt``, ``result.json`` and the run folder. A cell is finished when a
folder of the sweep, of any name, holds a complete result of its settings.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedsparse.config.effects import has_effect, without_effect
from fedsparse.config.run_settings import core_count
from fedsparse.config.settings import Given
from fedsparse.device import resolve_device
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.experiment import Experiment
from fedsparse.report.grid import Cell, Sweep, read_sweep
from fedsparse.report.plot import plot_rows
from fedsparse.report.results import Result, identity, is_complete, read_result
from fedsparse.report.table import measure, summarise, to_csv, to_markdown
from fedsparse.telemetry.folder import check_writable
from fedsparse.telemetry.progress import human_bytes

CHECKED = ("dataset", "data-dir", "device", "model", "norm", "compressor", "strategy", "topology", "sparsity")
"""Settings whose check reads a file, a device or a user's own code, so that cells with the same ones need one check."""

GRACE = 20
"""Seconds that an interrupted cell gets to save what it measured."""


@dataclass
class _Child:
    """A cell that is running: its folder, its process, which leads its own process group, and when it began."""

    cell: Cell
    folder: Path
    process: "subprocess.Popen[bytes]"
    began: float = field(default_factory=time.monotonic)


def sweep(settings: Given, file: str, jobs: str = "auto") -> None:
    """`main.py sweep FILE`: run every cell that is not finished; write one table and one plot of all cells."""
    if jobs != "auto" and not (jobs.isdecimal() and int(jobs)):
        raise ConfigError(f"jobs = {jobs}: should be auto or at least 1")
    plan = read_sweep(file, settings)
    for key in sorted(settings.typed):
        if not any(has_effect(key, cell.config) for cell in plan.cells):
            raise ConfigError(without_effect(plan.cells[0].config, [key])[0])
    # One check for all cells that share their data, partition and network.
    for config in {
        str([c.flat()[key] for key in CHECKED] + [c.partitioning()]): c for c in (cell.config for cell in plan.cells)
    }.values():
        check_writable(config.logdir, config.outfile)
        Experiment(config).check()
    run_sweep(plan, [sys.executable, "-m", "fedsparse", "run"], "auto" if jobs == "auto" else int(jobs))


def run_sweep(sweep: Sweep, command: Sequence[str], jobs: int | Literal["auto"]) -> None:
    """Run the cells that are not finished, then write the table and the plot of all finished cells.

    Args:
        sweep: the cells; results go to ``<logdir>/<sweep name>/``, with the logdir of the first cell.
        command: with `--config FILE` after it, this command line runs a cell.
        jobs: cells at once; auto is one for each core, or a single one on a GPU.

    Raises:
        RunFailed: some cells failed; the table has the other cells.
        KeyboardInterrupt: Ctrl-C; every cell's process has ended, finished cells are kept and the table is written.
    """
    folder = Path(sweep.cells[0].config.logdir) / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
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


def finished(folder: Path) -> dict[object, Result]:
    """The complete results in a sweep's folder, by ``identity`` of their settings."""
    found: dict[object, Result] = {}
    for path in sorted(folder.glob("*/result.json")):
        with suppress(ConfigError):  # a file that is damaged or no result counts as none
            result = read_result(path)
            if is_complete(result):
                found[identity(result["config"])] = result
    return found


def job_count(jobs: int | Literal["auto"], cell: Cell) -> int:
    """Cells at once: ``jobs``; auto is one for each core, or one on a GPU, because cells may not fit it together."""
    if jobs != "auto":
        return jobs
    cores = core_count() // cell.config.threads
    return max(1, cores) if resolve_device(cell.config.device).type == "cpu" else 1


def write_report(sweep: Sweep, folder: Path) -> None:
    """Write table.md, table.csv and plot.png of the finished cells into ``folder``, and print the table."""
    done = finished(folder)
    runs = [(cell.chosen, done[key]) for cell in sweep.cells if (key := identity(cell.config.flat())) in done]
    if not runs:
        return
    rows = summarise(runs)
    evaluations = (sum("eval/accuracy" in row for row in result["rounds"]) for _, result in runs)
    text = to_markdown(rows, evaluations)
    (folder / "table.md").write_text(text, encoding="utf-8")
    (folder / "table.csv").write_text(to_csv(rows), encoding="utf-8")
    plot_rows(rows, **sweep.plot).savefig(folder / "plot.png")
    print(f"\n{text}\n{len(runs)} of {len(sweep.cells)} cells; table.md, table.csv and plot.png are in {folder}")


def _run_cells(cells: Sequence[Cell], folder: Path, command: Sequence[str], jobs: int) -> list[str]:
    """Run the cells, ``jobs`` at once; returns one line for each failure."""
    waiting, running, failures = deque(cells), list[_Child](), list[str]()
    with _progress() as bar:
        task = bar.add_task("", total=len(cells), note="")
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_start(waiting.popleft(), folder, command))
                for child in [c for c in running if c.process.poll() is not None]:
                    running.remove(child)
                    line, failed = _outcome(child)
                    failures += [line] * failed
                    bar.advance(task)
                    count = int(bar.tasks[0].completed)
                    bar.console.print(f"cell {count:>{len(str(len(cells)))}}/{len(cells)}  {line}", soft_wrap=True)
                bar.update(task, note=f"{len(running)} running" + f", {len(failures)} failed" * bool(failures))
                time.sleep(0.05)
        finally:
            _stop(running)
    return failures


def _start(cell: Cell, folder: Path, command: Sequence[str]) -> _Child:
    home = folder / cell.name
    home.mkdir(exist_ok=True)
    outfile = home / "result.json"
    outfile.unlink(missing_ok=True)  # a failed attempt may have left one
    config = cell.config.replace(logdir=str(home), outfile=str(outfile), name="run", workers=1)
    (home / "settings.yaml").write_text(yaml.safe_dump(config.flat(), sort_keys=False))
    whole = [*command, "--config", str(home / "settings.yaml")]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (home / "log.txt").open("wb") as log:
        # The cell has a process group of its own, so that Ctrl-C in the terminal reaches the sweep alone, which passes
        # the signal on once. It has no session of its own, because Linux schedules a session separately, so that the
        # sweep's `nice` would not count.
        process = subprocess.Popen(
            whole,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            env=os.environ | {"PYTHONPATH": paths},
        )
    return _Child(cell, home, process)


def _outcome(child: _Child) -> tuple[str, bool]:
    """One line about a cell that has ended, and whether it failed."""
    seconds = time.monotonic() - child.began
    if child.process.returncode == 0:
        measured = measure(read_result(child.folder / "result.json"))
        accuracy, uplink = f"{measured['accuracy']:.2%}", human_bytes(measured["uplink-bytes"])
        return f"{child.folder.name}: accuracy {accuracy}, uplink {uplink}, {seconds:.0f} s", False
    lines = (child.folder / "log.txt").read_text(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"exit code {child.process.returncode}"
    return f"{child.folder.name} failed: {reason} (all of it: {child.folder / 'log.txt'})", True


def _stop(children: Sequence[_Child]) -> None:
    """Interrupt the cells as Ctrl-C would; after ``GRACE`` seconds kill the process groups that are left."""
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


def _progress() -> Progress:
    """A bar with cells done, running and failed, and the time left; off without a terminal."""
    console = Console(highlight=False)
    return Progress(
        TextColumn("cells"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
