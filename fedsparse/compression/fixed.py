"""Fixed point: values as whole multiples of one unit, so that the values of many clients can be added up exactly."""

import numpy as np

from fedsparse.compression.levels import thresholds


class FixedPoint:
    """Whole multiples, of at most 16 bits, of a unit that travels with them. Larger values are cut off.

    Args:
        unit: above 0.
        bits: of a multiple with its sign, 2 to 16.

    Attributes:
        clipped: the share of the last encoded values that were cut off; None before the first call.
    """

    code = 11

    def __init__(self, unit: float = 1.0, bits: int = 16) -> None:
        self.unit, self.most = np.float32(unit), (1 << bits - 1) - 1
        self.clipped: float | None = None

    def size(self, counts: np.ndarray) -> int:
        return 4 + 2 * int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        with np.errstate(over="ignore"):
            multiples = np.floor(values / self.unit + 1 - thresholds(values.size, seed, unbiased))
        self.clipped = float((np.abs(multiples) > self.most).mean()) if multiples.size else 0.0
        return self.unit.astype("<f4").tobytes() + np.clip(multiples, -self.most, self.most).astype("<i2").tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        unit = np.frombuffer(body[:4], "<f4").astype(np.float32)
        return np.frombuffer(body[4:], "<i2").astype(np.float32) * unit

    def multiples(self, values: np.ndarray) -> np.ndarray:
        """The whole numbers, int32, of values that were decoded with this unit."""
        return np.rint(values / self.unit).astype(np.int32)
