"""About k of the largest magnitudes, by thresholds alone: what gaussian and redsync share."""

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.client_state import Array, to_numpy
from fedsparse.compression.hggtopk import trim

TOLERANCE = 1 / 3  # of k, either way


def magnitudes_of(vector: Array) -> Array:
    return np.abs(vector) if isinstance(vector, np.ndarray) else vector.abs()


def count(hits: Array) -> int:
    """How many are true; on a device this waits for it."""
    return int(np.count_nonzero(hits)) if isinstance(hits, np.ndarray) else int(torch.count_nonzero(hits))


def where(hits: Array) -> Array:
    """Their sorted int64 indices."""
    return np.flatnonzero(hits) if isinstance(hits, np.ndarray) else torch.nonzero(hits).squeeze(1)


def is_near(number: int, k: int) -> bool:
    return abs(number - k) <= TOLERANCE * k


def near_threshold(magnitudes: Array, k: int, guess: float, low: float, high: float) -> float:
    """A threshold that about ``k`` of ``magnitudes`` reach: bisection from a first guess.

    Args:
        magnitudes: float32, shape ``(n,)``.
        k: 1 to n.
        guess: the first threshold tried.
        low, high: what at least ``k`` reach, and what fewer do or only ties at the top.

    Returns:
        A threshold that a number within a third of ``k`` reach; or, where ties leave none, ``low`` so near to ``high``
        that no float32 lies between.
    """
    threshold, left = np.float32(guess), magnitudes
    lowest, highest = np.float32(low), np.float32(high)
    while True:
        hits = left >= float(threshold)
        number = count(hits)
        if is_near(number, k):
            return float(threshold)
        if number > k:
            lowest, left = threshold, left[hits]  # from here on only these need counting
        else:
            highest = threshold
        threshold = lowest + (highest - lowest) / 2
        if not lowest < threshold < highest:
            return float(lowest)


def select_near(magnitudes: Array, k: int, threshold: float) -> Array:
    """The sorted indices of magnitudes that reach ``threshold``; only where ties let too many through, the first ``k``.

    An infinite loop of corrections is what ties would otherwise cost: no threshold can split them.
    """
    indices = where(magnitudes >= threshold)
    if is_near(len(indices), k):
        return indices
    host = to_numpy(indices)
    kept = trim(host, to_numpy(magnitudes[indices]), k)
    return torch.from_numpy(kept).to(indices.device) if isinstance(indices, Tensor) else kept
