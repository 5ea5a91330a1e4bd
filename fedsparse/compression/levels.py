"""Values as small integers, in blocks; the scale of a block is its largest magnitude.

Blocks: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022, section 2.1. Rounding at random to
evenly spaced levels: QSGD (Alistarh et al., NeurIPS 2017, section 3.1; scaled by the maximum as in its section 5); to
logarithmic ones: NUQSGD (Ramezani-Kebrya et al., JMLR 2021, section 3.1); to three: TernGrad (Wen et al., NeurIPS
2017, section 3.1).
"""

import numpy as np

from fedsparse.compression.arrays import blocks

BLOCK = 256  # values that share a scale: an outlier spoils only these, and the scale costs an eighth of a bit a value


def block_lengths(counts: np.ndarray, block: int) -> np.ndarray:
    """The lengths of all blocks in order, when groups of ``counts`` values are cut into blocks of at most ``block``.

    No block is empty.
    """
    many = -(-counts // block)
    lengths = np.full(int(many.sum()), block)
    held = many > 0
    lengths[many.cumsum()[held] - 1] -= (many * block - counts)[held]
    return lengths


def block_maxima(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The largest magnitude of each block."""
    if not lengths.size:
        return np.zeros(0, np.float32)
    return np.maximum.reduceat(np.abs(values), lengths.cumsum() - lengths)


def relative(values: np.ndarray, scales: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Values divided by the scale of their block, 0 if the scale is 0; in [-1, 1] if the scale is the maximum."""
    spread = np.repeat(scales, lengths)
    return np.divide(values, spread, out=np.zeros_like(values), where=spread > 0)


def spread_out(scales: memoryview, lengths: np.ndarray) -> np.ndarray:
    """The received scale of its block for each value, float32."""
    return np.repeat(np.frombuffer(scales, "<f4").astype(np.float32), lengths)


def thresholds(n: int, seed: int, unbiased: bool) -> np.ndarray | float:
    """A value between two levels is rounded up where its fraction exceeds this: a half, or uniform draws."""
    return np.random.Generator(np.random.SFC64([seed, 1])).random(n, np.float32) if unbiased else 0.5


class Int8:
    """255 evenly spaced levels, -127 to 127."""

    code = 3

    def size(self, counts: np.ndarray) -> int:
        return 4 * block_lengths(counts, BLOCK).size + int(counts.sum())

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        lengths = block_lengths(counts, BLOCK)
        scales = block_maxima(values, lengths)
        levels = np.floor(127 * relative(values, scales, lengths) + 1 - thresholds(values.size, seed, unbiased))
        return scales.astype("<f4").tobytes() + np.clip(levels, -127, 127).astype(np.int8).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        lengths = block_lengths(counts, BLOCK)
        values = spread_out(body[: 4 * lengths.size], lengths)
        levels = np.frombuffer(body[4 * lengths.size :], np.int8)
        for block in blocks(values.size):
            values[block] *= levels[block] / np.float32(127)
        return values


class Int4:
    """A sign and three bits: 0, or the scale halved 0 to 6 times."""

    code = 5
    levels = np.array([0, *(2.0**-j for j in range(6, -1, -1))], np.float32)

    def size(self, counts: np.ndarray) -> int:
        return 4 * block_lengths(counts, BLOCK).size + (int(counts.sum()) + 1) // 2

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        lengths = block_lengths(counts, BLOCK)
        scales = block_maxima(values, lengths)
        magnitudes = np.abs(relative(values, scales, lengths))
        low = np.clip((magnitudes.view(np.int32) >> 23) - 120, 0, 6)  # from a float32's exponent: the level below
        fraction = (magnitudes - self.levels[low]) / (self.levels[low + 1] - self.levels[low])
        low += fraction > thresholds(values.size, seed, unbiased)
        nibbles = low.astype(np.uint8) | (values < 0) * np.uint8(8)
        if nibbles.size % 2:
            nibbles = np.append(nibbles, np.uint8(0))
        return scales.astype("<f4").tobytes() + (nibbles[::2] << 4 | nibbles[1::2]).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        lengths = block_lengths(counts, BLOCK)
        values = spread_out(body[: 4 * lengths.size], lengths)
        packed, signed = np.frombuffer(body[4 * lengths.size :], np.uint8), np.concatenate([self.levels, -self.levels])
        for block in blocks(values.size):
            pairs = packed[block.start // 2 : (block.stop + 1) // 2]
            nibbles = np.stack([pairs >> 4, pairs & 15], axis=1).ravel()
            values[block] *= signed[nibbles[: block.stop - block.start]]
        return values


class Ternary:
    """-1, 0 or 1 times a scale for each group, five of them in a byte.

    Values are clipped first, at 2.5 times their root mean square. The scale is then the largest clipped magnitude. So
    the expectation of the unbiased coding is the clipped values, of which a few are too small. Without clipping, the
    few largest values would decide the noise of all: on updates of a CNN the squared error is then 5 to 6 times the
    square of the update, and 0.7 times with clipping.

    Not as in the paper: section 3.3 clips at 2.5 standard deviations. For values of mean 0 that is the same. The values
    of a small tensor, such as a bias, may have a mean that is larger than their deviation, and the paper's limit then
    cuts every one of them, to nothing where they are equal; a single value could never be sent.
    """

    code = 6
    clipping = 2.5

    def size(self, counts: np.ndarray) -> int:
        return 4 * counts.size + (int(counts.sum()) + 4) // 5

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        scales = np.zeros(counts.size, np.float32)
        held = counts > 0
        if held.any():
            many = counts[held]
            squares = np.add.reduceat(np.square(values, dtype=np.float64), many.cumsum() - many)
            scales[held] = np.minimum(block_maxima(values, many), self.clipping * np.sqrt(squares / many))
        parts = relative(values, scales, counts)
        trits = np.zeros((values.size + 4) // 5 * 5, np.uint8)
        trits[: values.size] = np.sign(parts) * (np.abs(parts) > thresholds(values.size, seed, unbiased)) + 1
        return scales.astype("<f4").tobytes() + (trits.reshape(-1, 5) @ POWERS).astype(np.uint8).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        values = spread_out(body[: 4 * counts.size], counts)
        packed = np.frombuffer(body[4 * counts.size :], np.uint8)
        for block in blocks(values.size):
            trits = TRITS[packed[block.start // 5 : (block.stop + 4) // 5]].ravel()
            values[block] *= trits[: block.stop - block.start]
        return values


POWERS = np.array([81, 27, 9, 3, 1])
TRITS = (np.arange(256)[:, None] // POWERS % 3 - 1).astype(np.float32)
"""The five values of every byte. The encoder never writes 243 to 255; the decoder reads them as -1, 0 and 1 too."""
