"""Weights & Biases (https://wandb.ai); ``WANDB_MODE=offline`` needs neither a network nor an account."""

from collections.abc import Mapping
from typing import Any

import wandb
from matplotlib.figure import Figure

from fedsparse.telemetry.trackers import PROJECT, Run, Tracker


class Wandb(Tracker):
    """A run of the project ``fedsparse``, or of the one that ``WANDB_PROJECT`` names; its files are in the run folder.

    A run that goes on shows nothing of the rounds that its service has already; their numbers are the same.
    """

    def __init__(self, run: Run, saved: Any = None) -> None:
        super().__init__(run)
        self._run = wandb.init(
            project=wandb.Settings().project or PROJECT,
            name=run.folder.name,
            dir=str(run.folder),
            config=run.config.flat(),
            id=saved["id"] if saved else None,
            resume="allow" if saved else None,
            reinit="create_new",  # because a process may have a run of its own
        )

    def round(self, round: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=round)

    def figure(self, tag: str, figure: Figure) -> None:
        self._run.log({tag: wandb.Image(figure)}, step=0)

    def state(self) -> Any:
        return {"id": self._run.id}

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._run.finish(exit_code=0 if summary["ended"] == "complete" else 1)
