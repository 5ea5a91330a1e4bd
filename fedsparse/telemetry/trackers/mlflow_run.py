"""MLflow (https://mlflow.org): at ``MLFLOW_TRACKING_URI``, or else in a database of the folder of the runs."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from fedsparse.telemetry.trackers import PROJECT, Run, Tracker

STATUS = {"complete": "FINISHED", "interrupted": "KILLED"}
MOST = 100
"""Settings that MLflow takes at once."""


class MLflow(Tracker):
    """A run of the experiment ``fedsparse``."""

    def __init__(self, run: Run, saved: Any = None) -> None:
        super().__init__(run)
        home, given = run.folder.parent.absolute(), os.environ.get("MLFLOW_TRACKING_URI")
        with alone(home):
            self._client = MlflowClient(given or f"sqlite:///{home / 'mlflow.db'}")
            if saved:
                self._id = saved["id"]
                return
            experiment = self._client.get_experiment_by_name(PROJECT)
            files = None if given else (home / "mlflow").as_uri()
            place = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT, files)
        self._id = self._client.create_run(place, run_name=run.folder.name).info.run_id
        params = [Param(key, str(value)) for key, value in run.config.flat().items()]
        for at in range(0, len(params), MOST):
            self._client.log_batch(self._id, params=params[at : at + MOST])

    def round(self, round: int, row: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(tag, value, now, round) for tag, value in row.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._client.log_batch(self._id, metrics=[Metric(tag, value, int(1000 * time.time()), step)])

    def figure(self, tag: str, figure: Figure) -> None:
        self._client.log_figure(self._id, figure, f"{tag}.png")

    def state(self) -> Any:
        return {"id": self._id}

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._client.set_terminated(self._id, STATUS.get(summary["ended"], "FAILED"))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A context for one process at a time, because MLflow fails where two cells of a sweep make its database."""
    with (folder / "mlflow.lock").open("w") as file:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
