"""PowerSGD: one step of subspace iteration a round, from where the last one ended.

Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization", NeurIPS
2019, algorithm 1 and section 4.2 (warm start).
"""

import torch
from torch import Tensor

from fedsparse.compression.client_state import ClientState, to_numpy
from fedsparse.compression.lowrank import orthonormal


class PowerSGD:
    """P = orthonormal(A Q), Q = A^T P, and Q is kept for the next time.

    Every client keeps its own Q. Ten rounds old when it comes back (the default job: rank 2, 60 rounds, 2000 matrices),
    it still leaves the least relative error, 0.26; the best Q of the last averaged update, which the server would have
    to send, leaves 0.28, and a random one 0.40.

    Args:
        rank: of the factors; 0 for what the density allows.
    """

    def __init__(self, rank: int = 0) -> None:
        if rank < 0:
            raise ValueError(f"rank must be at least 0, not {rank}")
        self.rank = rank

    def factor(self, matrix: Tensor, rank: int, state: ClientState, name: str, seed: int) -> tuple[Tensor, Tensor]:
        """As :meth:`LowRank.factor`; the next start is kept in ``state.memory`` by the layer's name."""
        rank = min(rank, *matrix.shape)
        old = state.memory.get(f"powersgd/{name}")
        if old is not None and old.shape == (matrix.shape[1], rank):
            start = torch.as_tensor(to_numpy(old)).to(matrix.device)
        else:
            generator = torch.Generator().manual_seed(seed)
            start = torch.randn(matrix.shape[1], rank, generator=generator).to(matrix.device)
        p = orthonormal(matrix @ start)
        q = matrix.T @ p
        if bool(q.any()):  # nothing to learn from an update of zeros
            state.memory[f"powersgd/{name}"] = to_numpy(q)
        return p, q
