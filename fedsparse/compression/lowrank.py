"""The update of a layer as two thin factors, of the smallest rank that holds a given share of its energy.

Halko, Martinsson and Tropp, "Finding Structure with Randomness", SIAM Review 53, 2011: range finder and power iteration
(algorithm 4.4), then an SVD of the projection (section 5.1). The algorithm makes the basis orthonormal after each
product with A and with A^T. Here the basis is made orthonormal after each product with A^T A, which takes half as many
QRs, and is less precise only below about 1e-6 of the largest singular value.
Sparse test matrix: Clarkson and Woodruff, "Low Rank Approximation and Regression in Input Sparsity Time", STOC 2013.
"""

import torch
from torch import Tensor

from fedsparse.compression.arrays import Array

OVERSAMPLING = 5  # columns of the sketch beyond the rank, at least (section 4.2: 5 or 10)


class LowRank:
    """Sketches a matrix, and keeps the fewest principal directions of the sketch that hold ``energy``.

    Args:
        energy: share of the squared norm to keep, in (0, 1]; less is kept only when the allowed rank is too small.
        power_iterations: products with A^T A that sharpen the sketch.
        residual_iterations: how often the rest is factored again; each time gets an equal share of the rank.
        balance: scale rows to an equal sum of magnitudes first, so that small rows are kept as well as large ones.
        sparse: sketch with a matrix of one element a row, which takes one read of the matrix instead of a product.
        rank: the largest rank; 0 for the rank that the density allows.
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
        if min(power_iterations, residual_iterations, rank) < 0:
            raise ValueError("power_iterations, residual_iterations and rank must be at least 0")
        self.energy, self.power_iterations, self.residual_iterations = energy, power_iterations, residual_iterations
        self.balance, self.sparse, self.rank = balance, sparse, rank

    def factor(
        self, matrix: Tensor, rank: int, memory: dict[str, Array], name: str, seed: int
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Factorization.factor`."""
        scale = row_scale(matrix) if self.balance else None
        left = matrix if scale is None else matrix / scale
        remain = (1 - self.energy) * float(left.square().sum()) if self.energy < 1 else 0.0
        factors: list[tuple[Tensor, Tensor]] = []
        for turn in range(self.residual_iterations + 1):
            turns_left = self.residual_iterations + 1 - turn
            share = (rank - sum(p.shape[1] for p, _ in factors)) // turns_left
            if share < 1 or (factors and float(left.square().sum()) <= remain):
                continue
            p, q = self.approximate(left, share, remain, seed + turn)
            factors.append((p, q))
            if turns_left > 1:
                left = left - p @ q.T
        if len(factors) > 1:
            p, q = (torch.cat(side, dim=1) for side in zip(*factors, strict=True))
        return (p if scale is None else p * scale), q

    def approximate(self, matrix: Tensor, rank: int, remain: float, seed: int) -> tuple[Tensor, Tensor]:
        """Factors with the fewest columns that leave at most ``remain`` of the squared norm, but at most ``rank``."""
        if matrix.shape[0] < matrix.shape[1]:  # QR and SVD take the short side
            q, p = self.approximate(matrix.T, rank, remain, seed)
            return p, q
        columns = min(matrix.shape[1], -(-(rank + OVERSAMPLING) // 8) * 8)  # a multiple of 8 multiplies faster
        basis = orthonormal(self.sketch(matrix, columns, seed))
        for _ in range(self.power_iterations):
            basis = orthonormal(matrix.T @ (matrix @ basis))
        projected = matrix @ basis
        # The eigenvectors of projected^T projected are the same in theory, but squaring makes float32 lose directions
        # with singular values below 3e-4 of the largest.
        _, singular, directions = torch.linalg.svd(torch.linalg.qr(projected, mode="r").R)
        energies, vectors = singular.square(), directions.T
        if remain > 0:
            lost = matrix.square().sum() - energies.cumsum(0)
            rank = min(rank, int((lost > remain).sum()) + 1)
        if not float(energies[0]) > 0:
            rank = 0
        return projected @ vectors[:, :rank], basis @ vectors[:, :rank]

    def sketch(self, matrix: Tensor, columns: int, seed: int) -> Tensor:
        """Random combinations of the rows of ``matrix``, (m, n): shape ``(n, columns)``."""
        generator = torch.Generator().manual_seed(seed)  # on the CPU, to be the same for every device
        m, n = matrix.shape
        if not self.sparse:
            return matrix.T @ torch.randn(m, columns, generator=generator).to(matrix.device)
        signs = torch.randint(0, 2, (m, 1), generator=generator).mul_(2).sub_(1).to(matrix)
        bins = torch.randint(0, columns, (m,), generator=generator).to(matrix.device)
        return matrix.new_zeros(columns, n).index_add_(0, bins, matrix * signs).T


def row_scale(matrix: Tensor) -> Tensor:
    """The mean magnitude of each row, shape ``(m, 1)``; 1 where it is 0."""
    means = matrix.abs().mean(dim=1, keepdim=True)
    return torch.where(means > 0, means, 1.0)


def orthonormal(matrix: Tensor) -> Tensor:
    """An orthonormal basis of the columns."""
    return torch.linalg.qr(matrix).Q
