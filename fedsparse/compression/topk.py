"""Top-k by magnitude, through torch.topk: the reference that hggtopk must equal.

Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017, section 3; with error feedback:
Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, algorithm 1.
"""

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.client_state import Array, ClientState
from fedsparse.compression.selection import Part, Selected, accumulate


class TopK:
    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        vector = accumulate(update, state)
        indices: list[Array] = []
        for start, stop, k in parts:
            part = vector[start:stop]
            magnitudes = np.abs(part) if isinstance(part, np.ndarray) else part.abs()
            found = largest(torch.as_tensor(magnitudes), k) + start
            indices.append(found.numpy() if isinstance(vector, np.ndarray) else found)
        return Selected(vector, indices)


def largest(magnitudes: Tensor, k: int) -> Tensor:
    """The sorted int64 indices of the ``k`` largest; ties go to the lowest index (torch.topk leaves them open)."""
    kth = torch.topk(magnitudes, k, sorted=False).values.min()
    above, ties = magnitudes > kth, magnitudes == kth
    keep = above | (ties & (ties.cumsum(0) <= k - above.sum()))
    return torch.nonzero_static(keep, size=k).squeeze(1)
