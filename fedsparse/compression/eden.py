"""EDEN at one bit a value: rotate at random, send signs and one scale, rotate back.

Vargaftik, Ben Basat, Portnoy, Mendelson, Ben-Itzhak and Mitzenmacher, "EDEN: Communication-Efficient and Robust
Distributed Mean Estimation for Federated Learning", ICML 2022, sections 3 and 4 (at one bit it is their "DRIVE",
NeurIPS 2021, whose section 4 has both scales).

The rotation is a randomised Hadamard transform, taken twice. The papers take it once, as a shortcut for a uniform
rotation. But one transform maps a vector with few large values to few distinct values, whose signs are biased; the
second transform mixes them. Only a uniform rotation is exactly unbiased: a few large values among zeros keep a bias,
which vanishes as blocks grow (for 1 and 0.5 the mean is off by 3.6 % of their norm in a block of 32, and by less than
0.1 % in a block of 256). Every machine decodes the same bits: the signs come from the raw bits of PCG64, and the
transform adds in a fixed order, or adds numbers whose sums float32 holds exactly in any order.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from fedsparse.compression.arrays import blocks
from fedsparse.compression.levels import block_lengths, block_maxima, relative

BLOCK = 1 << 12  # values rotated together: enough to be almost normal after rotation, few enough for a cache
CHUNK = 1 << 14  # values transformed at a time: so few that they stay in a core's cache, and need little memory
SMALLEST = 1 << 5  # zeros fill up a shorter block to this length


class Eden:
    """The scale ||x||^2 / ||R x||_1 is unbiased; the scale ||R x||_1 / d is closest to x. ``unbiased`` chooses."""

    code = 9

    def size(self, counts: np.ndarray) -> int:
        widths = padded(block_lengths(counts, BLOCK))
        return 8 + 4 * widths.size + int(widths.sum()) // 8

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        lengths = block_lengths(counts, BLOCK)
        widths, largest = padded(lengths), block_maxima(values, lengths)
        filled, scaled, start, at = np.zeros(int(widths.sum()), np.float32), relative(values, largest, lengths), 0, 0
        for length, width in zip(lengths.tolist(), widths.tolist(), strict=True):
            filled[at : at + length] = scaled[start : start + length]
            start, at = start + length, at + width
        rotated = rotate(filled.copy(), widths, seed)
        starts = widths.cumsum() - widths
        sums = np.add.reduceat(np.abs(rotated), starts, dtype=np.float64) if starts.size else np.zeros(0)
        if unbiased:
            energies = np.add.reduceat(np.square(filled), starts, dtype=np.float64) if starts.size else np.zeros(0)
            factors = np.divide(energies, sums, out=np.zeros_like(sums), where=sums > 0)
        else:
            factors = sums / widths
        scales = np.minimum(factors * largest, np.finfo(np.float32).max / BLOCK).astype("<f4")
        return seed.to_bytes(8, "little") + scales.tobytes() + np.packbits(rotated < 0).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        lengths = block_lengths(counts, BLOCK)
        widths, end = padded(lengths), 8 + 4 * lengths.size
        negative = np.frombuffer(body[end:], np.uint8)
        values = np.empty(int(widths.sum()), np.float32)
        for at in blocks(values.size):
            values[at] = signs(negative, at.start, at.stop)
        rotate(values, widths, int.from_bytes(body[:8], "little"), back=True)
        scales, start, filled = np.frombuffer(body[8:end], "<f4"), 0, 0
        for scale, length, width in zip(scales, lengths.tolist(), widths.tolist(), strict=True):
            values[start : start + length] = values[filled : filled + length] * scale  # closes the gaps of padding
            start, filled = start + length, filled + width
        return values[:start]


def padded(lengths: np.ndarray) -> np.ndarray:
    """The power of two that each block is filled up to."""
    return np.maximum(SMALLEST, 1 << np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64))


def signs(bits: np.ndarray, start: int, stop: int) -> np.ndarray:
    """-1 for each set bit of the packed ``bits``, else 1: float32. ``start`` is a multiple of 8."""
    return signs_of_bytes().take(bits[start // 8 : (stop + 7) // 8], axis=0).reshape(-1)[: stop - start]


@cache
def signs_of_bytes() -> np.ndarray:
    """The signs of the eight bits of every byte: float32, shape (256, 8)."""
    flips = np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)
    return 1 - 2 * flips.astype(np.float32)


def rotate(values: np.ndarray, widths: np.ndarray, seed: int, back: bool = False) -> np.ndarray:
    """``R values`` block by block, R = H D2 H D1 orthonormal; ``back``: its transpose, of values that are 1 or -1.

    It overwrites ``values``.
    """
    half = 8 * -(-values.size // 64)  # bytes of the signs of one of D1 and D2
    bits = np.random.PCG64(np.random.SeedSequence([seed, 9])).random_raw(half // 4).astype("<u8").view(np.uint8)
    first, second = bits[:half], bits[half:]
    for start, stop, width in chunks(widths):
        part = values[start:stop]
        turned = part if back else part * signs(first, start, stop)
        transform = hadamard_of_signs if back and width == BLOCK else hadamard_rows
        turned = transform(turned.reshape(-1, width)).reshape(-1)
        turned = turned * signs(second, start, stop)
        turned = transform(turned.reshape(-1, width)).reshape(-1)
        part[:] = turned * signs(first, start, stop) if back else turned
    return values


def chunks(widths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Start, end and width of neighbouring blocks that are transformed together, because they have the same width."""
    at = 0
    for run in np.split(widths, np.flatnonzero(np.diff(widths)) + 1) if widths.size else ():
        width, end = int(run[0]), at + int(run.sum())
        step = max(1, CHUNK // width) * width
        for start in range(at, end, step):
            yield start, min(start + step, end), width
        at = end


def hadamard_rows(x: np.ndarray) -> np.ndarray:
    """The transform of every row: its a b values form an (a, b) grid, whose columns and then rows are transformed."""
    width = x.shape[1]
    b = 1 << (width.bit_length() // 2)
    x = butterflies(x.reshape(-1, width // b, b))
    x = butterflies(np.ascontiguousarray(x.transpose(0, 2, 1)))  # so that no inner loop is short
    return x.transpose(0, 2, 1).reshape(-1, width) * np.float32(1 / np.sqrt(width))


def butterflies(x: np.ndarray) -> np.ndarray:
    """The transform along axis 1, whose length is a power of two, by sums and differences; not normalised."""
    rows, width, inner = x.shape
    step = 1
    while step < width:
        old = x.reshape(rows, -1, 2, step * inner)
        x = np.empty_like(old)
        np.add(old[:, :, 0], old[:, :, 1], out=x[:, :, 0])
        np.subtract(old[:, :, 0], old[:, :, 1], out=x[:, :, 1])
        step *= 2
    return x.reshape(rows, width, inner)


def hadamard_of_signs(x: np.ndarray) -> np.ndarray:
    """As :func:`hadamard_rows`, for rows of ``BLOCK`` values that are 1 or -1, or what became of such by one transform.

    All sums on the way are whole multiples of 1 or of 1/64. The magnitudes of a row's 4096 values add up to 2^18 of
    these at most, as the sum of their squares stays the same. So every order of adding gives the same bits, and
    products of matrices, which take a third of the time, are allowed.
    """
    side = matrix()
    return (side @ x.reshape(-1, len(side), len(side)) @ side).reshape(-1, BLOCK) * np.float32(1 / len(side))


@cache
def matrix() -> np.ndarray:
    """The transform of the square root of ``BLOCK`` values, not normalised: float32, shape (64, 64)."""
    width = int(np.sqrt(BLOCK))
    return hadamard_rows(np.eye(width, dtype=np.float32)) * np.float32(np.sqrt(width))
