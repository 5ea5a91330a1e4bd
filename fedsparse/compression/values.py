"""Value codings. With error feedback, the residual keeps what a coding loses."""

from functools import cache
from typing import Protocol, cast

import numpy as np
import torch

from fedsparse.catalogue import VALUES
from fedsparse.compression.arrays import blocks, from_bf16, to_bf16
from fedsparse.plugins import named


class ValueReader(Protocol):
    """Bytes, whose length follows from the counts alone, -> float32 values.

    ``counts`` are the sizes of consecutive groups of values, one for each part that was selected from. A coding with
    scales has one scale for each group.

    Attributes:
        code: the number of the coding in the wire format.
    """

    code: int

    def size(self, counts: np.ndarray) -> int:
        """Bytes of values with these ``counts``."""
        ...

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        """float32 values from ``size(counts)`` bytes; they may be a read-only view of ``body``."""
        ...


class ValueCodec(ValueReader, Protocol):
    """float32 values <-> bytes.

    ``fedsparse.config.presets`` lists the codings that can be unbiased, and the codings that are fine enough for
    factors.
    """

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes | memoryview:
        """Codes float32 ``values``, shape ``(counts.sum(),)``, as closely as possible.

        With ``unbiased``, which only codings of ``UNBIASED_VALUES`` take, it rounds at random instead, so that the
        expectation over ``seed`` is the value itself. The returned bytes may be a view of ``values``.
        """
        ...


@cache
def value_codec(name: str) -> ValueCodec:
    """The coding of a name in ``catalogue.VALUES``."""
    return cast(ValueCodec, named(VALUES, name)())


class F32:
    code = 0

    def size(self, counts: np.ndarray) -> int:
        return 4 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> memoryview:
        return values.astype("<f4", copy=False).view(np.uint8).data

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return np.frombuffer(body, "<f4")


class F16:
    code = 1

    def size(self, counts: np.ndarray) -> int:
        return 2 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        limit = np.finfo(np.float16).max  # larger values would become infinite; their excess stays in the residual
        return np.clip(values, -limit, limit).astype("<f2").tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return torch.from_numpy(np.frombuffer(body, "<f2").copy()).float().numpy()  # NumPy takes 6 times as long


class BF16:
    """The upper half of a float32: its range, with 8 bits of precision."""

    code = 2

    def size(self, counts: np.ndarray) -> int:
        return 2 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        return to_bf16(values, seed if unbiased else None).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return from_bf16(np.frombuffer(body, "<u2"))


ELEMENTWISE = (F32, F16, BF16)
"""The codings that have no scale, so that each value is coded for itself."""


class Sign:
    """One bit a value, and one scale a group: the mean magnitude, which of all scales is closest to the values.

    Bernstein et al., "signSGD", ICML 2018; the scale: Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019,
    algorithm 1.
    """

    code = 4

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
        bits = values.view(np.uint32)
        for block in blocks(values.size):
            bits[block] |= negative[block].astype(np.uint32) << 31  # sets the sign bits
        return values
