"""The device on which a run computes."""

import ctypes
import sys

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


LARGE = 10_000_000
"""Weights from which free memory is worth more than the time to ask the system for it again."""


def release_freed(weights: int) -> None:
    """Return the freed memory of a large model to the system, because glibc keeps that of smaller tensors."""
    if weights >= LARGE and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)
