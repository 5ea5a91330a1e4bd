"""Shared parts of the side-by-side measurements, which interleave all rows in one run, and take medians.

They measure the CPU time of one thread, because other work on the machine changes it least.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fedsparse.config import Config
from fedsparse.experiment import Experiment
from fedsparse.strategies.server_app import make_strategy


def wall() -> float:
    """Wall-clock seconds, after the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def machine() -> str:
    """The machine and torch version of the measurements."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, torch {torch.__version__}"


def reset_peak() -> int:
    """Reset the peak that ``peak_bytes`` gives; returns the bytes resident now. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most bytes resident since ``reset_peak``."""
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def write_images(file: Path, samples: int, side: int = 28, channels: int = 1, classes: int = 10) -> str:
    """An .npz data set of noise, with 1,000 test images; returns its path."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, n in (("train", samples), ("test", 1000)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, side, side, channels), np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % classes
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return str(file)


class Federation:
    """The server's half of a run without telemetry: each ``round`` is one train phase over the grid."""

    def __init__(self, config: Config, grid: Grid, nodes: Sequence[int]) -> None:
        self.strategy = make_strategy(Experiment(config), nodes, grid)
        self.grid, self.done = grid, 0
        self.arrays: ArrayRecord = self.strategy.broadcast(1)

    def round(self) -> list[Message]:
        """Sample, train, aggregate; returns the replies."""
        self.done += 1
        messages = self.strategy.configure_train(self.done, self.arrays, ConfigRecord(), self.grid)
        replies = list(self.grid.send_and_receive(messages))
        arrays, _ = self.strategy.aggregate_train(self.done, replies)
        assert arrays is not None
        self.arrays = arrays
        return replies
