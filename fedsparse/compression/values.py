"""How precise the selected values travel. What a coding loses stays in the residual."""

from typing import Protocol

import numpy as np


class ValueCodec(Protocol):
    """float32 values <-> bytes, whose length follows from the counts alone.

    ``counts`` are the sizes of consecutive groups of the values, one a slice that was selected from: a coding with
    scales has one for each. ``code`` is its number in the wire format.
    """

    code: int

    def size(self, counts: np.ndarray) -> int:
        """Bytes that ``encode`` gives for ``counts``."""
        ...

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int) -> bytes | memoryview:
        """Codes float32 ``values``, shape ``(counts.sum(),)``; ``seed`` is for codings that round at random.

        What it returns may be a view of ``values``.
        """
        ...

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        """float32 values (perhaps a read-only view of ``body``) from ``size(counts)`` bytes."""
        ...


class F32:
    code = 0

    def size(self, counts: np.ndarray) -> int:
        return 4 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int) -> memoryview:
        return values.astype("<f4", copy=False).view(np.uint8).data

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return np.frombuffer(body, "<f4")


class F16:
    code = 1

    def size(self, counts: np.ndarray) -> int:
        return 2 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int) -> bytes:
        limit = np.finfo(np.float16).max  # beyond it lies infinity; with error feedback the rest follows later
        return np.clip(values, -limit, limit).astype("<f2").tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        return np.frombuffer(body, "<f2").astype(np.float32)


class Sign:
    """One bit a value and one scale a group, the mean magnitude: the closest point to the group of the form ±scale.

    Bernstein et al., "signSGD", ICML 2018; the scale: Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019,
    algorithm 1.
    """

    code = 4

    def size(self, counts: np.ndarray) -> int:
        return 4 * counts.size + (int(counts.sum()) + 7) // 8

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int) -> bytes:
        groups = np.split(np.abs(values), counts.cumsum()[:-1])
        scales = np.array([group.mean(dtype=np.float64) if group.size else 0.0 for group in groups], "<f4")
        return scales.tobytes() + np.packbits(values < 0).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        scales = np.frombuffer(body[: 4 * counts.size], "<f4").astype(np.float32)
        negative = np.unpackbits(np.frombuffer(body[4 * counts.size :], np.uint8), count=int(counts.sum()))
        values = np.repeat(scales, counts)
        values.view(np.uint32)[:] |= negative.astype(np.uint32) << 31  # the sign bit itself
        return values


VALUES: dict[str, ValueCodec] = {"f32": F32(), "f16": F16(), "sign": Sign()}
"""Value codings by name. The wire format reserves number 2 for bf16 and 3 for int8."""
