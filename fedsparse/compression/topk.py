"""Top-k by magnitude, the plain way: the reference that hggtopk must equal.

Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017, section 3; with error feedback:
Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, algorithm 1.
"""

from typing import overload

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.arrays import Array, magnitudes_of
from fedsparse.compression.selection import Part


class TopK:
    """Keeps exactly the ``k`` largest magnitudes of each part."""

    def indices(self, vector: Array, parts: list[Part], memory: dict[str, Array], seed: int) -> list[Array]:
        return [largest(magnitudes_of(vector[start:stop]), k) + start for start, stop, k in parts]


@overload
def largest(scores: np.ndarray, k: int) -> np.ndarray: ...
@overload
def largest(scores: Tensor, k: int) -> Tensor: ...
def largest(scores: Array, k: int) -> Array:
    """The sorted int64 indices of the ``k`` largest scores; of equal scores, those of lower index.

    Args:
        scores: any float dtype, shape ``(n,)``, without NaN.
        k: 1 to n.
    """
    if isinstance(scores, np.ndarray):
        kth = np.partition(scores, scores.size - k)[scores.size - k]
        keep = scores > kth
        equal = np.flatnonzero(scores == kth)
        keep[equal[: k - np.count_nonzero(keep)]] = True
        return np.flatnonzero(keep)
    lowest = torch.topk(scores, k, sorted=False).values.min()  # from here on the CPU never waits for the device
    above, ties = scores > lowest, scores == lowest
    kept = above | (ties & (ties.cumsum(0) <= k - above.sum()))
    return torch.nonzero_static(kept, size=k).squeeze(1)
