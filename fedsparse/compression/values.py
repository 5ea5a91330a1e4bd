"""How precise the selected values travel. What a coding loses stays in the residual."""

from typing import Protocol

import numpy as np
import torch

from fedsparse.compression.client_state import Array
from fedsparse.compression.eden import Eden
from fedsparse.compression.levels import Int4, Int8, Ternary
from fedsparse.compression.natural import PowerOfTwo
from fedsparse.compression.onebit import TwoMeans


class ValueCodec(Protocol):
    """float32 values <-> bytes, whose length follows from the counts alone.

    ``counts`` are the sizes of consecutive groups of the values, one a slice that was selected from: a coding with
    scales has one for each.

    Attributes:
        code: its number in the wire format.
        unbiased: whether ``encode`` can make the expectation over the seed the value itself.
        fine: whether the relative error of a group is so small that factors of a matrix survive it.
    """

    code: int
    unbiased: bool
    fine: bool

    def size(self, counts: np.ndarray) -> int:
        """Bytes that ``encode`` gives for ``counts``."""
        ...

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes | memoryview:
        """Codes float32 ``values``, shape ``(counts.sum(),)``: as closely as it can, or ``unbiased`` over ``seed``.

        What it returns may be a view of ``values``.
        """
        ...

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        """float32 values (perhaps a read-only view of ``body``) from ``size(counts)`` bytes."""
        ...


class F32:
    code, unbiased, fine = 0, True, True

    def size(self, counts: np.ndarray) -> int:
        return 4 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> memoryview:
        return values.astype("<f4", copy=False).view(np.uint8).data

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return np.frombuffer(body, "<f4")


class F16:
    code, unbiased, fine = 1, False, True

    def size(self, counts: np.ndarray) -> int:
        return 2 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        limit = np.finfo(np.float16).max  # beyond it lies infinity; with error feedback the rest follows later
        return np.clip(values, -limit, limit).astype("<f2").tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return torch.from_numpy(np.frombuffer(body, "<f2").copy()).float().numpy()  # NumPy takes 6 times as long


class BF16:
    """The upper half of a float32: its range, 8 bits of precision; at random, or to the nearest, ties to even."""

    code, unbiased, fine = 2, True, True

    def size(self, counts: np.ndarray) -> int:
        return 2 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        return to_bf16(values, seed if unbiased else None).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return from_bf16(np.frombuffer(body, "<u2"))


def to_bf16(values: np.ndarray, seed: int | None = None) -> np.ndarray:
    """Finite float32 as bfloat16 (uint16): rounded at random, unbiased, or to the nearest where ``seed`` is None."""
    bits = values.view(np.uint32)
    limit = np.uint32(0x7F7F0000)  # the largest number; beyond it lies infinity
    if seed is None:
        noise = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    else:
        noise = np.random.Generator(np.random.SFC64([seed, 16])).integers(0, 1 << 16, bits.size, np.uint16)
    small = (bits & 0x7FFFFFFF) < limit
    return (np.where(small, bits + noise, (bits & 0x80000000) | limit) >> 16).astype("<u2")


def from_bf16(halves: np.ndarray) -> np.ndarray:
    """The float32 that a bfloat16 (uint16) stands for."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def widened(residual: Array) -> Array:
    """A residual as float32, whichever way it was kept."""
    return from_bf16(residual) if isinstance(residual, np.ndarray) and residual.dtype == np.uint16 else residual


class Sign:
    """One bit a value and one scale a group, the mean magnitude: the closest point to the group of the form ±scale.

    Bernstein et al., "signSGD", ICML 2018; the scale: Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019,
    algorithm 1.
    """

    code, unbiased, fine = 4, False, False

    def size(self, counts: np.ndarray) -> int:
        return 4 * counts.size + (int(counts.sum()) + 7) // 8

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        groups = np.split(np.abs(values), counts.cumsum()[:-1])
        scales = np.array([group.mean(dtype=np.float64) if group.size else 0.0 for group in groups], "<f4")
        return scales.tobytes() + np.packbits(values < 0).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        scales = np.frombuffer(body[: 4 * counts.size], "<f4").astype(np.float32)
        negative = np.unpackbits(np.frombuffer(body[4 * counts.size :], np.uint8), count=int(counts.sum()))
        values = np.repeat(scales, counts)
        values.view(np.uint32)[:] |= negative.astype(np.uint32) << 31  # the sign bit itself
        return values


VALUES: dict[str, ValueCodec] = {
    "f32": F32(),
    "f16": F16(),
    "bf16": BF16(),
    "int8": Int8(),
    "int4": Int4(),
    "ternary": Ternary(),
    "power-of-two": PowerOfTwo(),
    "two-means": TwoMeans(),
    "sign": Sign(),
    "eden": Eden(),
}
"""Value codings by name."""
