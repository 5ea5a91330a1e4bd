"""One call a round: TensorBoard, rounds.csv, the JSON and the terminal get the same numbers under the same tags."""

import csv
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import yaml
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fedsparse.telemetry.folder import write_json
from fedsparse.telemetry.progress import Progress, print_summary

STAGES = (
    "sample",
    "data",
    "forward",
    "backward",
    "optimizer",
    "prune",
    "compress",
    "encode",
    "decode",
    "aggregate",
    "evaluate",
)
"""Of a round, in order. The client's stages are summed over the cohort."""

TAGS = (
    "train/loss",
    "train/accuracy",
    "eval/loss",
    "eval/accuracy",
    "eval/client_loss",
    "eval/client_accuracy",
    "comm/uplink_bytes",
    "comm/downlink_bytes",
    "comm/uplink_total",
    "comm/downlink_total",
    "comm/clients",
    "comm/failures",
    "compress/density",
    "compress/threshold",
    "compress/residual_norm",
    "topology/density",
    "topology/changed",
    *(f"time/{stage}" for stage in STAGES),
    "time/round",
    "time/simulated",
    "time/simulated_total",
    "system/rss_mb",
    "system/gpu_mb",
)
"""Columns of rounds.csv and keys of every round in the JSON; those that a round did not measure are left out."""


class Recorder:
    """Writes every round as it ends, and the summary when the run ends, whichever way it ends.

    Args:
        config: the resolved settings, written to ``config.yaml`` as ``--config`` accepts them back.
        folder: the run folder.
        outfile: also write the result JSON there, unless empty.
        rounds: how many rounds there will be, for the progress bar.
        dense_bytes: bytes of one update sent dense, to which the uplink is compared.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path, outfile: str, rounds: int, dense_bytes: int) -> None:
        self.config, self.folder, self.outfile = dict(config), folder, outfile
        self.dense_bytes = dense_bytes
        self.rounds: list[dict[str, float]] = []
        self.extra: dict[str, Any] = {}
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        self._csv_file = (folder / "rounds.csv").open("w", newline="")
        self._csv = csv.DictWriter(self._csv_file, ("round", *TAGS), restval="")
        self._csv.writeheader()
        self._board = SummaryWriter(str(folder))
        self._board.add_text("config", "\n".join(f"    {k}: {v}" for k, v in self.config.items()))
        self._progress = Progress(rounds)
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind in (KeyboardInterrupt, SystemExit)  # Flower stops a ServerApp by the latter
        self.extra["ended"] = "complete" if kind is None else "interrupted" if stopped else "failed"
        try:
            with self._named():
                self._write_result()
                self._board.close()
                self._csv_file.close()
        finally:
            with suppress(OSError):  # the terminal may be gone; the files are written
                self._progress.stop()
                print_summary(self.summary(), self.folder)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A full disk does not say which."""
        try:
            yield
        except OSError as error:
            raise OSError(f"cannot write into {self.folder}: {error.strerror or error}") from None

    def figure(self, tag: str, figure: Figure) -> None:
        """Save a picture in the run folder (PNG) and show it in TensorBoard."""
        with self._named():
            figure.savefig(self.folder / f"{tag}.png", dpi=120)
            self._board.add_figure(tag, figure)

    def record(self, round: int, metrics: Mapping[str, float]) -> None:
        """Write one round's numbers. Every key must be one of ``TAGS``; totals are added here."""
        row = {tag: float(metrics[tag]) for tag in TAGS if tag in metrics}
        if unknown := set(metrics) - set(TAGS):
            raise KeyError(f"not a telemetry tag: {', '.join(sorted(unknown))}")
        for way in ("uplink", "downlink"):
            before = self.rounds[-1][f"comm/{way}_total"] if self.rounds else 0.0
            row[f"comm/{way}_total"] = before + row.get(f"comm/{way}_bytes", 0.0)
        if "time/simulated" in row:
            row["time/simulated_total"] = row["time/simulated"] + (
                self.rounds[-1].get("time/simulated_total", 0.0) if self.rounds else 0.0
            )
        row |= _memory()
        self.rounds.append({"round": round, **row})
        with self._named():
            self._csv.writerow({k: _plain(v) for k, v in self.rounds[-1].items()})
            self._csv_file.flush()
            self._show(round, row)
        self._progress.show(round, row)

    def _show(self, round: int, row: Mapping[str, float]) -> None:
        for tag, value in row.items():
            self._board.add_scalar(tag, value, round)
        if "eval/accuracy" in row:  # TensorBoard's axis is a step: here a step is a kilobyte uploaded
            self._board.add_scalar(
                "eval/accuracy_over_uplink_kB", row["eval/accuracy"], int(row["comm/uplink_total"] / 1000)
            )
        if "eval/accuracy" in row and "time/simulated_total" in row:  # here a step is a simulated second
            self._board.add_scalar(
                "eval/accuracy_over_simulated_s", row["eval/accuracy"], int(row["time/simulated_total"])
            )

    def details(self, round: int, scalars: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """Show in TensorBoard, and nowhere else, what has no column: how many there are depends on the model."""
        with self._named():
            for tag, value in scalars.items():
                self._board.add_scalar(tag, value, round)
            for tag, values in histograms.items():
                self._board.add_histogram(tag, values, round)

    def summary(self) -> dict[str, Any]:
        """The run in a few numbers: accuracy, bytes, ratio to dense, seconds by stage."""
        evaluated = [r for r in self.rounds if "eval/accuracy" in r]
        uplink = self.rounds[-1]["comm/uplink_total"] if self.rounds else 0.0
        uploads = sum(r.get("comm/clients", 0.0) for r in self.rounds)
        return {
            "rounds": int(self.rounds[-1]["round"]) if self.rounds else 0,
            "accuracy": evaluated[-1]["eval/accuracy"] if evaluated else None,
            "best-accuracy": max((r["eval/accuracy"] for r in evaluated), default=None),
            "loss": evaluated[-1]["eval/loss"] if evaluated else None,
            "uplink-bytes": int(uplink),
            "downlink-bytes": int(self.rounds[-1]["comm/downlink_total"]) if self.rounds else 0,
            "dense-uplink-bytes": int(uploads * self.dense_bytes),
            "uplink-ratio": uploads * self.dense_bytes / uplink if uplink else None,
            "seconds": time.perf_counter() - self._began,
            "simulated-seconds": self.rounds[-1].get("time/simulated_total") if self.rounds else None,
            "seconds-by-stage": {s: sum(r.get(f"time/{s}", 0.0) for r in self.rounds) for s in STAGES},
            **self.extra,
        }

    def _write_result(self) -> None:
        rounds = [{k: _plain(v) for k, v in row.items()} for row in self.rounds]
        summary = {k: _plain(v) if isinstance(v, float) else v for k, v in self.summary().items()}
        result = {"config": self.config, "versions": _versions(), "rounds": rounds, "summary": summary}
        write_json(self.folder / "result.json", result)
        if self.outfile:
            write_json(Path(self.outfile), result)


def _plain(value: float) -> float | int | str:
    """Whole numbers without a point, and no NaN or Infinity, which JSON does not have."""
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


def _versions() -> dict[str, str]:
    packages = ("fedsparse", "flwr", "torch", "torchvision", "numpy")
    return {"python": platform.python_version()} | {p: _version(p) for p in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"
