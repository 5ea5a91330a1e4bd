"""Quantised weights as bytes: whole levels in 8, 4 or 2 bits, and the step of each group in float32.

Levels of -1, 0 and 1 take 1.6 bits, five of them in a byte, as ``levels.Ternary`` codes them; signs without a 0 take
one, as ``values.Sign`` codes them.
"""

import numpy as np

from fedsparse.compression.arrays import blocks
from fedsparse.compression.levels import POWERS, Ternary, spread_out
from fedsparse.compression.values import Sign, ValueReader


class Levels:
    """Levels in two's complement, several in a byte, the first in the highest bits.

    Args:
        bits: 8, 4 or 2.
        code: the number in the wire format.
    """

    def __init__(self, bits: int, code: int) -> None:
        self.bits, self.code, self.each = bits, code, 8 // bits
        self._shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)

    def size(self, counts: np.ndarray) -> int:
        return 4 * counts.size - (-int(counts.sum()) // self.each)

    def pack(self, levels: np.ndarray) -> bytes:
        low = (levels.astype(np.uint8) & (2**self.bits - 1)).reshape(-1, self.each)
        return bytes(np.bitwise_or.reduce(low << self._shifts, axis=1))

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        values = spread_out(body[: 4 * counts.size], counts)
        packed = np.frombuffer(body[4 * counts.size :], np.uint8)
        for block in blocks(values.size):
            here = packed[block.start // self.each : -(-block.stop // self.each), None]
            # The highest bits of a level go to the highest of a signed byte, and come back with the sign.
            levels = (here << self._shifts[::-1]).view(np.int8) >> (8 - self.bits)
            values[block] *= levels.ravel()[: block.stop - block.start]
        return values


FEW_BITS = (Levels(8, 12), Levels(4, 13), Levels(2, 14))


def coded_levels(levels: np.ndarray, steps: np.ndarray, bits: int) -> tuple[ValueReader, bytes]:
    """The coding of whole ``levels`` that takes the fewest bytes, and what its ``decode`` takes.

    Args:
        levels: whole numbers that ``bits`` bits hold in two's complement; for 1 bit, signs, or 0 for a weight that
            a topology has just grown.
        steps: of each group, not negative.
    """
    head = steps.astype("<f4").tobytes()
    if bits == 1 and levels.all():
        return Sign(), head + np.packbits(levels < 0).tobytes()
    if bits <= 2 and levels.min(initial=0) >= -1:
        trits = np.pad(levels.astype(np.int64) + 1, (0, -levels.size % 5)).reshape(-1, 5)
        return Ternary(), head + (trits @ POWERS).astype(np.uint8).tobytes()
    codec = next(codec for codec in FEW_BITS if codec.bits == bits)
    return codec, head + codec.pack(np.pad(levels, (0, -levels.size % codec.each)))
