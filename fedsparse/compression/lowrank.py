"""A weight's update as two thin factors, of the rank that holds the asked share of its energy.

Halko, Martinsson and Tropp, "Finding Structure with Randomness", SIAM Review 53, 2011: range finder and power iteration
with re-orthonormalisation (algorithm 4.4), then the factorisation of the projection (section 5.1).
Sparse test matrix: Clarkson and Woodruff, "Low Rank Approximation and Regression in Input Sparsity Time", STOC 2013.
"""

import torch
from torch import Tensor

from fedsparse.compression.state import ClientState

OVERSAMPLING = 8  # columns sketched beyond the rank (section 4.2 advises 5 to 10)


class LowRank:
    """Sketches a matrix, and keeps as many of the sketch's principal directions as its energy asks for.

    Args:
        energy: share of the squared norm to keep, in (0, 1]; less only where the rank allowed is too small.
        power_iterations: products with A^T A that sharpen the sketch, at least 1.
        residual_iterations: times that the same is done again to what is left; each has its share of the rank.
        balance: scale rows to an equal sum of magnitudes first, so that small rows are kept as well as large ones.
        sparse: sketch with a matrix of one entry a row, which costs one read of the matrix instead of a product.
        rank: the largest rank; 0 for what the density allows.
    """

    def __init__(
        self,
        energy: float = 0.95,
        power_iterations: int = 1,
        residual_iterations: int = 0,
        balance: bool = False,
        sparse: bool = False,
        rank: int = 0,
    ) -> None:
        if not 0 < energy <= 1:
            raise ValueError(f"energy must be in (0, 1], not {energy}")
        if power_iterations < 1 or residual_iterations < 0 or rank < 0:
            raise ValueError("power_iterations must be at least 1, residual_iterations and rank at least 0")
        self.energy, self.power_iterations, self.residual_iterations = energy, power_iterations, residual_iterations
        self.balance, self.sparse, self.rank = balance, sparse, rank

    def factor(self, matrix: Tensor, rank: int, state: ClientState, name: str, seed: int) -> tuple[Tensor, Tensor]:
        """``P`` and ``Q`` with ``matrix`` close to ``P Q^T``.

        Args:
            matrix: float32, shape ``(m, n)``, entries of at most 1 in magnitude.
            rank: the most columns that the factors may have, at least 1.
            state, name: of the client and the layer; not used.
            seed: of the test matrix.

        Returns:
            float32 factors of shapes ``(m, r)`` and ``(n, r)``, ``0 <= r <= rank``.
        """
        scale = row_scale(matrix) if self.balance else None
        left = matrix if scale is None else matrix / scale
        wanted = (1 - self.energy) * float(left.square().sum())  # what may remain
        factors: list[tuple[Tensor, Tensor]] = []
        for turn in range(self.residual_iterations + 1):
            turns_left = self.residual_iterations + 1 - turn
            share = (rank - sum(p.shape[1] for p, _ in factors)) // turns_left
            if share < 1:
                continue
            p, q = self.approximate(left, share, wanted, seed + turn)
            factors.append((p, q))
            if turns_left > 1:
                left = left - p @ q.T
        p, q = (torch.cat(side, dim=1) for side in zip(*factors, strict=True))
        return (p if scale is None else p * scale), q

    def approximate(self, matrix: Tensor, rank: int, remain: float, seed: int) -> tuple[Tensor, Tensor]:
        """Factors of at most ``rank`` columns, as few as leave no more than ``remain`` of the squared norm."""
        if matrix.shape[0] < matrix.shape[1]:  # QR and eigh are for the short side
            q, p = self.approximate(matrix.T, rank, remain, seed)
            return p, q
        sketched = min(matrix.shape[1], rank + OVERSAMPLING)
        basis = orthonormal(matrix.T @ self.sketch(matrix, sketched, seed))
        for _ in range(self.power_iterations - 1):
            basis = orthonormal(matrix.T @ (matrix @ basis))
        projected = matrix @ basis  # B^T; A is close to B^T Q^T
        values, vectors = torch.linalg.eigh(projected.T @ projected)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)  # largest first
        lost = float(matrix.square().sum()) - values.cumsum(0)
        rank = min(rank, int((lost > remain).sum()) + 1) if float(values[0]) > 0 else 0
        return projected @ vectors[:, :rank], basis @ vectors[:, :rank]

    def sketch(self, matrix: Tensor, columns: int, seed: int) -> Tensor:
        """``matrix`` times a random matrix of so many columns."""
        generator = torch.Generator().manual_seed(seed & (1 << 63) - 1)  # on the CPU: the same on every device
        n = matrix.shape[1]
        if not self.sparse:
            return matrix @ torch.randn(n, columns, generator=generator).to(matrix.device)
        signs = torch.randint(0, 2, (n,), generator=generator).mul_(2).sub_(1).to(matrix)
        buckets = torch.randint(0, columns, (n,), generator=generator).to(matrix.device)
        return matrix.new_zeros(matrix.shape[0], columns).index_add_(1, buckets, matrix * signs)


def row_scale(matrix: Tensor) -> Tensor:
    """The mean magnitude of each row, shape ``(m, 1)``; 1 where it is 0."""
    means = matrix.abs().mean(dim=1, keepdim=True)
    return torch.where(means > 0, means, 1.0)


def orthonormal(matrix: Tensor) -> Tensor:
    """An orthonormal basis of the columns."""
    return torch.linalg.qr(matrix).Q
