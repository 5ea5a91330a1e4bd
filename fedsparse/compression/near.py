"""Selects about the k largest magnitudes by a threshold; gaussian and redsync share this."""

import numpy as np

from fedsparse.compression.arrays import Array, count_true, true_indices
from fedsparse.compression.topk import largest

TOLERANCE = 1 / 3  # of k, either way


def is_near(number: int, k: int) -> bool:
    """Whether ``number`` is within a third of ``k``."""
    return abs(number - k) <= TOLERANCE * k


def near_threshold(magnitudes: Array, k: int, guess: float, low: float, high: float) -> float:
    """A threshold that about ``k`` of ``magnitudes`` reach: bisection from a first guess.

    Args:
        magnitudes: float32, shape ``(n,)``.
        k: 1 to n.
        guess: the first threshold tried.
        low: a threshold that at least ``k`` magnitudes reach.
        high: a threshold that fewer than ``k`` magnitudes reach, or the largest magnitude.

    Returns:
        A threshold that about ``k`` magnitudes reach, a number within a third of ``k``. When ties allow no such number:
        the largest float32 that too many magnitudes reach.
    """
    threshold, left = np.float32(guess), magnitudes
    lowest, highest = np.float32(low), np.float32(high)
    while True:
        hits = left >= float(threshold)
        number = count_true(hits)
        if is_near(number, k):
            return float(threshold)
        if number > k:
            lowest, left = threshold, left[hits]  # no other can reach a higher threshold
        else:
            highest = threshold
        threshold = lowest + (highest - lowest) / 2
        if not lowest < threshold < highest:
            return float(lowest)


def select_near(magnitudes: Array, k: int, threshold: float) -> Array:
    """The sorted int64 indices of the magnitudes that reach ``threshold``.

    When too many reach it because of ties, the result is the ``k`` largest instead, because no threshold splits ties.
    """
    indices = true_indices(magnitudes >= threshold)
    return indices if is_near(len(indices), k) else indices[largest(magnitudes[indices], k)]
