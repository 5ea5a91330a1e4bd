"""The run: its name, seed, engine, device, and where results go."""

import os
from typing import Annotated, Literal

from pydantic import Field

from fedsparse.catalogue import TRACKERS
from fedsparse.config.settings import Settings, SomeOf


class RunSettings(Settings):
    """The run: its name, seed, engine, device, and where results go."""

    name: str = Field("", pattern=r"^[\w.\- ]{0,100}$")
    """Name of the run folder, of letters, digits, spaces and -_. alone; made of the main settings when empty."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Same seed, same bits, in every engine."""
    engine: Literal["local", "flower"] = "local"
    """local: in this process. flower: `flwr run`, on Flower's own runtime."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")
    """auto, cpu, mps, cuda or cuda:N."""
    workers: int | Literal["auto"] = "auto"
    """Processes that train a cohort side by side (local engine)."""
    threads: int = Field(1, ge=1, le=1024)
    """Torch threads of each client."""
    state_store: Literal["auto", "context", "files"] = "auto"
    """Where clients keep their residuals: in Flower's Context, or in files of the run folder when they are large. If
    one process trains the clients on a GPU, a Context is on the GPU."""
    client_timeout: float = Field(0.0, ge=0, le=1e8)
    """Seconds after which a client fails (local engine); 0 for never. A new worker's first client has 30 more."""
    round_timeout: float = Field(3600.0, gt=0, le=1e8)
    """Seconds after which the server goes on without a missing reply."""
    log_interval: int = Field(0, ge=0, le=10**9)
    """Local steps between two lines of the step log, which is in the terminal and in TensorBoard under step/; 0 for no
    step log."""
    tracker: Annotated[str, SomeOf(TRACKERS)] = "tensorboard"
    """Where a run's curves go beside its files, separated by commas; empty for nowhere. All but tensorboard have to be
    installed."""
    checkpoint_every: int = Field(0, ge=0)
    """Rounds from one checkpoint to the next; 0 for one about every five minutes. At a stop there is always one. A
    complete run keeps its last one only if this is not 0."""
    resume: str = ""
    """Go on with the run in this folder, which was interrupted or killed, by its own settings. rounds may grow, and so
    may the uplink-budget of a run."""
    logdir: str = Field("runs", min_length=1)
    """Where run folders are made."""
    outfile: str = ""
    """Also write the result as JSON to this file."""


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
