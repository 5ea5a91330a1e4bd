"""Operations that NumPy (for vectors on the CPU) and torch (for vectors on a device) spell differently."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor
"""NumPy on the CPU, torch on a device."""

AnyArray = TypeVar("AnyArray", bound=Array)

BLOCK = 40 << 9
"""Elements of a block: a multiple of 8 and of 5, so that a block of packed bits or trits begins with a whole byte."""


def as_vector(update: Array) -> Array:
    """``update``, of any floating dtype, as contiguous float32: NumPy from the CPU, torch from a device.

    An update that is float32 and contiguous is not copied.
    """
    if isinstance(update, Tensor):
        update = update.detach().to(torch.float32).contiguous()
        if update.device.type != "cpu":
            return update
        update = update.numpy()
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(update, np.float32)


def to_numpy(array: Array) -> np.ndarray:
    """``array`` on the CPU; not copied when it is there already."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def on_same_device(array: Array, other: Array) -> Array:
    """``array`` on the device of ``other``: NumPy, or torch on that device. Not copied when it is there already."""
    if isinstance(other, np.ndarray):
        return to_numpy(array)
    return (torch.tensor(array) if isinstance(array, np.ndarray) else array).to(other.device)


def overwritable(array: AnyArray) -> AnyArray:
    """``array`` itself; for a read-only view, a new array of its shape with arbitrary content."""
    return np.empty_like(array) if isinstance(array, np.ndarray) and not array.flags.writeable else array


def unwritable(array: Array) -> Array:
    """``array`` as a read-only view; a tensor, of which torch has no such view, as a copy."""
    if isinstance(array, Tensor):
        return array.clone()
    view = array.view()
    view.flags.writeable = False
    return view


def concatenated(arrays: Sequence[Array]) -> Array:
    """One array of all ``arrays``, at least one, all of them NumPy or all torch."""
    return np.concatenate(arrays) if isinstance(arrays[0], np.ndarray) else torch.cat(arrays)  # type: ignore[arg-type]


def magnitudes_of(vector: Array) -> Array:
    return np.abs(vector) if isinstance(vector, np.ndarray) else vector.abs()


def count_true(hits: Array) -> int:
    """How many of ``hits`` are true. On a device this waits for their computation."""
    return int(np.count_nonzero(hits)) if isinstance(hits, np.ndarray) else int(torch.count_nonzero(hits))


def true_indices(hits: Array) -> Array:
    """The sorted int64 indices of the ``hits`` that are true. On a device this waits for their computation."""
    return np.flatnonzero(hits) if isinstance(hits, np.ndarray) else torch.nonzero(hits).squeeze(1)


def sum_of_squares(vector: Array) -> float:
    """The sum of squares in float32, in one pass over the memory; infinite when float32 overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(vector @ vector)


def norm(vector: Array) -> float:
    """The L2 norm, also when the sum of squares is too large or too small for float32."""
    total = sum_of_squares(vector)
    return math.sqrt(total) if 1e-30 < total < math.inf else float(np.linalg.norm(to_numpy(vector).astype(np.float64)))


def to_bf16(values: np.ndarray, seed: int | None = None) -> np.ndarray:
    """Finite float32 as bfloat16 (uint16): rounded at random, unbiased, or to the nearest when ``seed`` is None."""
    bits = values.view(np.uint32)
    limit = np.uint32(0x7F7F0000)  # the largest bfloat16; the next one is infinity
    if seed is None:
        noise = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    else:
        noise = np.random.Generator(np.random.SFC64([seed, 16])).integers(0, 1 << 16, bits.size, np.uint16)
    small = (bits & 0x7FFFFFFF) < limit
    return (np.where(small, bits + noise, (bits & 0x80000000) | limit) >> 16).astype("<u2")


def from_bf16(halves: np.ndarray) -> np.ndarray:
    """bfloat16 (uint16) as float32."""
    bits = halves.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def blocks(size: int) -> Iterator[slice]:
    """Slices that cover ``size`` elements. Work done block by block needs little memory beside its result."""
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def as_float32(vector: Array) -> Array:
    """``vector`` as float32, whether it is float32 or bfloat16 (uint16)."""
    return from_bf16(vector) if isinstance(vector, np.ndarray) and vector.dtype == np.uint16 else vector
