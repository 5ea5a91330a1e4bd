"""The device on which a run computes."""

import ctypes
import os
import sys
from pathlib import Path

import torch

from fedsparse.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device that ``--device`` names; ``auto`` is the first GPU or, where there is none, the CPU.

    Raises:
        ConfigError: this machine does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ConfigError(f"device = {name}: torch finds no CUDA GPU here; use --device cpu")
        if (device.index or 0) >= count:
            raise ConfigError(f"device = {name}: there are {count} GPUs here, cuda:0 to cuda:{count - 1}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device = mps: torch finds no Apple GPU here; use --device cpu")
    return device


def memory_of(device: torch.device) -> int:
    """The bytes of the device's memory, or of what a container may use of the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else ""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(there, int(allowed)) if allowed.isdigit() else there


LARGE = 10_000_000
"""Weights from which free memory is worth more than the time to ask the system for it again."""


def release_freed(weights: int) -> None:
    """Return the freed memory of a large model to the system, because glibc keeps that of smaller tensors."""
    if weights >= LARGE and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)
