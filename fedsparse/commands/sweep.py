"""Run a grid of settings; typed again, it goes on where it was left."""

import sys

from fedsparse.config.effects import has_effect, without_effect
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.report.grid import read_sweep

CHECKED = ("dataset", "data-dir", "device", "model", "norm", "compressor", "strategy", "topology", "sparsity",
           "batch-size", "accumulate", "eval-clients", "holdout")  # fmt: skip
"""Settings whose check looks at something outside them."""


def sweep(settings: Given, file: str, jobs: str = "auto") -> None:
    """`main.py sweep FILE`: run every cell that is not finished; write one table and one plot of all."""
    if jobs != "auto" and not (jobs.isdecimal() and int(jobs)):
        raise ConfigError(f"jobs = {jobs}: should be auto or at least 1")
    plan = read_sweep(file, settings)
    for key in sorted(settings.typed):
        if not any(has_effect(key, cell.config) for cell in plan.cells):
            raise ConfigError(without_effect(plan.cells[0].config, [key])[0])
    from fedsparse.commands.cells import run_sweep  # here, because a mistake in the file needs no torch
    from fedsparse.experiment import Experiment
    from fedsparse.telemetry.folder import check_writable

    # Cells that share their data, partition and network need one look for all of them.
    for config in {
        str([c.flat()[key] for key in CHECKED] + [c.partitioning()]): c for c in (cell.config for cell in plan.cells)
    }.values():
        check_writable(config.logdir, config.outfile)
        Experiment(config).check()
    run_sweep(plan, [sys.executable, "-m", "fedsparse", "run"], "auto" if jobs == "auto" else int(jobs))
