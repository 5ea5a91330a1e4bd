"""Two bits a value: a sign, and one of two magnitudes.

SparseLoCo (Sarfi, Thérien, Lidin and Belilovsky 2025, "Communication efficient LLM pre-training with SparseLoCo") sends
each value as one of four, which are means of the values that they stand for. Here the two magnitudes of a block are
those of its values above and below the block's mean magnitude. The length of a block and this way to find the levels
are choices of this project; the authors' program goes by a grid in standard deviations.
"""

import numpy as np

from fedsparse.compression.levels import block_lengths

BLOCK = 256  # values that share the two magnitudes, which then cost a quarter of a bit a value
TOGETHER = 64  # blocks that are decoded at a time, so that this takes little memory
PLACES = np.array([64, 16, 4, 1])
SHIFTS = np.array([6, 4, 2, 0], np.uint8)


class Int2:
    """Of each pair of bits the upper is the sign, and the lower chooses the larger magnitude."""

    code = 10

    def size(self, counts: np.ndarray) -> int:
        return 8 * block_lengths(counts, BLOCK).size + (int(counts.sum()) + 3) // 4

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        lengths, magnitudes = block_lengths(counts, BLOCK), np.abs(values)
        means = block_means(magnitudes, np.ones(values.size, np.bool_), lengths)
        large = magnitudes > np.repeat(means, lengths)
        pairs = np.stack([block_means(magnitudes, ~large, lengths), block_means(magnitudes, large, lengths)], 1)
        codes = np.zeros((values.size + 3) // 4 * 4, np.uint8)
        codes[: values.size] = large + np.uint8(2) * (values < 0)
        return pairs.astype("<f4").tobytes() + (codes.reshape(-1, 4) @ PLACES).astype(np.uint8).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        lengths = block_lengths(counts, BLOCK)
        pairs = np.frombuffer(body[: 8 * lengths.size], "<f4").astype(np.float32).reshape(-1, 2)
        packed = np.frombuffer(body[8 * lengths.size :], np.uint8)
        levels = np.concatenate([pairs, -pairs], 1)  # (blocks, 4), in the order of the codes
        values, start = np.empty(int(counts.sum()), np.float32), 0
        for first in range(0, lengths.size, TOGETHER):
            many = lengths[first : first + TOGETHER]
            stop = start + int(many.sum())
            codes = (packed[start // 4 : -(-stop // 4), None] >> SHIFTS & 3).ravel()[start % 4 :][: stop - start]
            values[start:stop] = levels[np.repeat(np.arange(first, first + many.size), many), codes]
            start = stop
        return values


def block_means(magnitudes: np.ndarray, chosen: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The mean of the ``chosen`` values of each block, 0 where it has none: float32, shape of ``lengths``."""
    if not lengths.size:
        return np.zeros(0, np.float32)
    starts = lengths.cumsum() - lengths
    sums = np.add.reduceat(magnitudes * chosen, starts, dtype=np.float64)
    return (sums / np.maximum(np.add.reduceat(chosen, starts, dtype=np.int64), 1)).astype(np.float32)
