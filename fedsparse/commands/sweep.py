"""Run a grid of settings; typed again, it goes on where it was left."""

import sys

from fedsparse.config.effects import has_effect, without_effect
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.report.grid import Sweep, read_sweep

OF_CELLS = {
    "name": "a cell's folder is named by its settings",
    "outfile": "every cell has a result.json of its own",
    "resume": "cells that were cut short go on by themselves",
    "workers": "cells run side by side, --jobs of them",
}
"""Settings that a sweep gives its cells itself, and why."""


def sweep(settings: Given, file: str, jobs: str = "auto") -> None:
    """`main.py sweep FILE`: run every cell that is not finished; write one table and one plot of all cells."""
    check_flags(settings, jobs)
    run_plan(read_sweep(file, settings), settings, jobs)


def check_flags(settings: Given, jobs: str) -> None:
    """Check what was typed besides the cells' settings.

    Raises:
        ConfigError: a wrong number of jobs, or a setting that a sweep gives its cells itself.
    """
    if jobs != "auto" and not (jobs.isdecimal() and int(jobs)):
        raise ConfigError(f"jobs = {jobs}: should be auto or at least 1")
    if taken := sorted(settings.typed & OF_CELLS.keys()):
        raise ConfigError(f"--{taken[0]} has no effect on a sweep: {OF_CELLS[taken[0]]}")


def run_plan(plan: Sweep, settings: Given, jobs: str) -> None:
    """Run every cell of a sweep that is not finished, after a look at what could stop them.

    Raises:
        ConfigError: a setting that was typed has no effect on any cell, or a cell cannot run.
    """
    for key in sorted(settings.typed):
        if not any(has_effect(key, cell.config) for cell in plan.cells):
            raise ConfigError(without_effect(plan.cells[0].config, [key])[0])
    from fedsparse.commands.cells import run_sweep  # here, because a mistake in the file needs no torch
    from fedsparse.commands.checks import look
    from fedsparse.preflight import CHECKED

    # Cells that share their data, partition and network need one look for all of them.
    for config in {str([c.flat()[key] for key in CHECKED]): c for c in (cell.config for cell in plan.cells)}.values():
        look(config)
    run_sweep(plan, [sys.executable, "-P", "-m", "fedsparse", "run"], "auto" if jobs == "auto" else int(jobs))
