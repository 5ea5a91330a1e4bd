"""Trackio (https://github.com/gradio-app/trackio): in ``TRACKIO_DIR``, which ``trackio show`` reads."""

from collections.abc import Mapping
from typing import Any

import trackio

from fedsparse.telemetry.trackers import PROJECT, Run, Tracker


class Trackio(Tracker):
    """A run of the project ``fedsparse``."""

    def __init__(self, run: Run, saved: Any = None) -> None:
        super().__init__(run)
        resume = "never" if saved is None else "allow"
        self._run = trackio.init(PROJECT, name=run.folder.name, config=run.config.flat(), resume=resume, embed=False)

    def round(self, round: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=round)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._run.finish()
