"""Two thin factors of a layer: their shapes, and their product, which has the same bits on every machine."""

import numpy as np

from fedsparse.vector import Entry

BLOCK = 1 << 16  # elements of a product that are float64 at a time


def matrix_shape(entry: Entry) -> tuple[int, int]:
    """The shape of a layer as a matrix: its first dimension, and the product of all others."""
    return entry.shape[0], entry.size // entry.shape[0]


def factor_counts(entry: Entry, rank: int) -> np.ndarray:
    """The sizes of the groups of a factored layer's values: the columns of P, then the columns of Q."""
    return np.repeat(matrix_shape(entry), rank)


def product(values: np.ndarray, entry: Entry) -> np.ndarray:
    """``P Q^T`` of float32 factors that stand column after column: float32, shape ``(entry.size,)``; it may overflow.

    Clients that add such products to their weights must all get the same bits, but each BLAS adds in an order of its
    own. So each row of a factor is rounded to a grid of 22 bits or more below its largest value. On this grid float64
    sums of products are exact in any order; only the result is rounded, to float32.
    """
    rows, columns = matrix_shape(entry)
    rank = values.size // (rows + columns)
    bits = (53 - max(rank - 1, 0).bit_length()) // 2  # at least 22 up to rank 512
    p = on_grid(values[: rank * rows].reshape(rank, rows), bits).T
    q = on_grid(values[rank * rows :].reshape(rank, columns), bits)
    out, step = np.empty((rows, columns), np.float32), max(1, BLOCK // columns)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, rows, step):
            out[at : at + step] = p[at : at + step] @ q
    return out.reshape(-1)


def on_grid(factor: np.ndarray, bits: int) -> np.ndarray:
    """``factor``, shape ``(rank, n)``, with ``factor[:, i]`` in multiples of 2^-``bits`` of its magnitude: float64."""
    exponents = np.frexp(np.abs(factor).max(axis=0, initial=0.0))[1]
    with np.errstate(invalid="ignore"):
        return np.ldexp(np.rint(np.ldexp(factor.astype(np.float64), bits - exponents)), exponents - bits)
