"""Writes each round's numbers, under the same tags, to rounds.csv, the JSON, the terminal and the trackers."""

import csv
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import yaml
from matplotlib.figure import Figure

from fedsparse.config import Config
from fedsparse.errors import Diverged, RunFailed, cause
from fedsparse.files import replaced
from fedsparse.telemetry.folder import labels, write_json
from fedsparse.telemetry.progress import Progress, print_summary
from fedsparse.telemetry.summary import summary_of
from fedsparse.telemetry.tags import ACCURACY, KILLED, WEIGHTS_HASH, Headline, columns
from fedsparse.telemetry.trackers import Details, Run, Tracker, start

log = logging.getLogger("fedsparse")


class Recorder:
    """Writes every round at its end, and the summary when the run is complete, interrupted or failed.

    Args:
        config: the resolved settings, written to ``config.yaml``, which ``--config`` can read.
        folder: the run folder.
        outfile: a file to which the result JSON is written too; empty for none.
        rounds: how many rounds there will be, for the progress bar.
        dense_bytes: of one message with the whole of the full model, to which what travels is compared; None where
            clients hold several.
        metrics: of the task: their names, and the formats of their values. The first is the headline, which the
            terminal and the summary show.
        command: what makes the result, by its name on the command line.
        provenance: where the numbers come from, written to ``provenance.json`` and into the result.
        saved: of a run that goes on, the rows of its rounds and what ``state_dict`` returned; None for a new run.

    Attributes:
        tags: the numbers that a round may have, in the order of the columns of rounds.csv.
        rounds: the rounds recorded so far, each without the tags that it did not measure.
        extra: further entries of the summary.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        outfile: str,
        rounds: int,
        dense_bytes: int | None,
        metrics: Mapping[str, str] = ACCURACY,
        command: str = "run",
        provenance: Mapping[str, Any] | None = None,
        saved: tuple[list[dict[str, float]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.command = command
        self.config, self.folder, self.outfile = dict(config), folder, outfile
        whole = Config.from_mapping(config)
        self.dense_bytes, self.tags = dense_bytes, columns(metrics, labels(whole.models) if whole.client_models else ())
        self.headline = Headline(*next(iter(metrics.items())))
        self._others = [Headline(name, form) for name, form in metrics.items() if name != self.headline.name]
        self.rounds, state = saved or ([], {"seconds": 0.0, "trackers": {}})
        self.extra: dict[str, Any] = {}
        with replaced(folder / "config.yaml") as file:
            file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        self.provenance = dict(provenance or {})
        write_json(folder / "provenance.json", self.provenance)
        self._csv_file = (folder / "rounds.csv").open("w", newline="")
        self._csv = csv.DictWriter(self._csv_file, ("round", *self.tags), restval="", lineterminator="\n")
        self._csv.writeheader()
        for row in self.rounds:
            self._csv.writerow({k: _plain(v) for k, v in row.items()})
        run = Run(folder, whole, self.headline.tag)
        self._trackers = start(run, state["trackers"])
        self._progress = Progress(rounds, self.headline)
        self._began = time.perf_counter() - state["seconds"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind in (KeyboardInterrupt, SystemExit)  # Flower stops a ServerApp by SystemExit
        self.extra["ended"] = "complete" if kind is None else "interrupted" if stopped else "failed"
        self.extra["diverged"] = isinstance(error, Diverged) or not self._is_finite()
        try:
            with self._named():
                self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
                self._write_result(self.outfile)
                self._track(lambda tracker: tracker.finish(self.summary()))
                self._csv_file.close()
        except OSError:
            self._progress.stop()
            raise
        with suppress(OSError):  # the terminal may be gone; the files are written
            self._progress.stop()
            if not isinstance(error, OSError):  # such as of a full disk, which took less than the summary would say
                print_summary(self.summary(), self.folder, self.headline, self._others)

    def save(self) -> dict[str, Any]:
        """Write what is measured so far, for the reader of a killed run; returns the state for a checkpoint."""
        self.extra |= {"ended": KILLED, "diverged": not self._is_finite()}
        with self._named():
            self._write_result("")
        return {"seconds": time.perf_counter() - self._began, "trackers": self._track(lambda tracker: tracker.state())}

    def _is_finite(self) -> bool:
        """Whether the losses of the last evaluation and of the last round are finite."""
        losses = [[row[tag] for row in self.rounds if tag in row][-1:] for tag in ("eval/loss", "train/loss")]
        return all(math.isfinite(loss) for last in losses for loss in last)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A context that adds the run folder to an OSError, because the error may not name a file."""
        try:
            yield
        except OSError as error:
            raise OSError(f"cannot write into {self.folder}: {error.strerror or error}") from None

    def _track(self, act: Callable[[Tracker], Any]) -> dict[str, Any]:
        """What each tracker answers. A service that fails in the middle of a run is left out from then on."""
        answers = {}
        with self._named():
            for name, tracker in list(self._trackers.items()):
                try:
                    answers[name] = act(tracker)
                except Exception as error:
                    if not tracker.is_optional:
                        raise
                    log.warning("tracker = %s: the run goes on without it: %s", name, cause(error))
                    del self._trackers[name]
        return answers

    def figure(self, tag: str, figure: Figure) -> None:
        """Save a picture in the run folder (PNG) and show it in the trackers."""
        with self._named():
            figure.savefig(self.folder / f"{tag}.png", dpi=120)
        self._track(lambda tracker: tracker.figure(tag, figure))

    def record(self, round: int, metrics: Mapping[str, float]) -> None:
        """Write one round's numbers; totals and memory are added here.

        Raises:
            KeyError: a key of ``metrics`` is not one of ``tags``.
            RunFailed: the run folder is gone.
        """
        row = {tag: float(metrics[tag]) for tag in self.tags if tag in metrics}
        if unknown := set(metrics) - set(self.tags):
            raise KeyError(f"not a telemetry tag: {', '.join(sorted(unknown))}")
        for way in ("uplink", "downlink"):
            before = self.rounds[-1][f"comm/{way}_total"] if self.rounds else 0.0
            row[f"comm/{way}_total"] = before + row.get(f"comm/{way}_bytes", 0.0)
        if "time/simulated" in row:
            row["time/simulated_total"] = row["time/simulated"] + (
                self.rounds[-1].get("time/simulated_total", 0.0) if self.rounds else 0.0
            )
        row |= _memory()
        if not (self.folder / "rounds.csv").exists():
            raise RunFailed(f"round {round}: the run folder {self.folder} was removed")
        self.rounds.append({"round": round, **row})
        with self._named():
            self._csv.writerow({k: _plain(v) for k, v in self.rounds[-1].items()})
            self._csv_file.flush()
        shown = {tag: value for tag, value in row.items() if tag != WEIGHTS_HASH}
        self._track(lambda tracker: tracker.round(round, shown))
        self._progress.show(round, row)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Show one number, whose steps are no rounds, in the trackers alone."""
        self._track(lambda tracker: tracker.scalar(tag, value, step))

    def details(self, round: int, details: Details) -> None:
        """Show what depends on the model's layers in the trackers alone."""
        self._track(lambda tracker: tracker.details(round, details))

    @property
    def shows_details(self) -> bool:
        """Whether a tracker shows what depends on the model's layers."""
        return any(type(tracker).details is not Tracker.details for tracker in self._trackers.values())

    def summary(self) -> dict[str, Any]:
        """The run in a few numbers."""
        seconds = time.perf_counter() - self._began
        return summary_of(self.rounds, self.headline, self._others, self.dense_bytes, seconds) | self.extra

    def _write_result(self, outfile: str) -> None:
        rounds = [{k: _plain(v) for k, v in row.items()} for row in self.rounds]
        summary = {k: _plain(v) if isinstance(v, float) else v for k, v in self.summary().items()}
        result: dict[str, Any] = {"command": self.command, "config": self.config, "provenance": self.provenance}
        result |= {"rounds": rounds, "summary": summary}
        try:
            write_json(self.folder / "result.json", result)
        finally:  # because the disk of the run folder may be full
            if outfile:
                write_json(Path(outfile), result)


def _plain(value: float) -> float | int | str:
    """A number for JSON: a whole number as int, and NaN and infinity as text, because JSON lacks them."""
    if not math.isfinite(value):
        return str(value)
    return int(value) if value == int(value) else value


def _memory() -> dict[str, float]:
    memory, statm = {}, Path("/proc/self/statm")
    if statm.exists():  # Linux
        memory["system/rss_mb"] = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    if torch.cuda.is_initialized():
        memory["system/gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return memory
