"""SparseGPT: Frantar and Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot".

Section 3 and algorithm 1, in the paper's symbols: H, W, M, E. A convolution is a matrix, too: each output position is a
sample, and each group of channels is a problem of its own. All groups (G) of a layer are solved side by side.
"""

import torch
from torch import Tensor

from fedsparse.sparsity.largest import largest_mask, largest_of_each_row

DAMPING = 0.01
ESCALATIONS = 30
BLOCK = 128


def inverse_factor(hessian: Tensor, damping: Tensor) -> Tensor:
    """The upper Cholesky factor U of the damped inverse Hessian, ``(H + damping I)^-1 = U^T U``.

    ``U[i, i:] / U[i, i]`` is the first row of the inverse of ``H[i:, i:]``, normalised. OBS needs that row for column i
    once the columns before i are settled. A row of the inverse of the whole H would be right for the first column only.

    Args:
        hessian: float64, shape ``(G, C, C)``.
        damping: float64, shape ``(G,)``. For a group whose damped Hessian is not positive definite, the damping grows
            tenfold, up to ``ESCALATIONS`` times.

    Raises:
        ValueError: the Hessian is not finite, or stays indefinite.
    """
    if not bool(hessian.isfinite().all()):
        raise ValueError("sparsegpt: the calibration inputs of a layer are not finite")
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    for _ in range(ESCALATIONS):
        # From the last column to the first, H = R R^T has an upper triangular R; then U = R^-1.
        lower, failed = torch.linalg.cholesky_ex((hessian + damping[:, None, None] * eye).flip(1, 2))
        if not bool(failed.any()):
            return torch.linalg.solve_triangular(lower.flip(1, 2), eye.expand_as(hessian), upper=True)
        damping = torch.where(failed != 0, 10 * damping, damping)
    raise ValueError("sparsegpt: the Hessian of a layer is not positive definite, however damped")


def sparsegpt(weight: Tensor, hessian: Tensor, kept: int, nm: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Prune a layer's weights and adapt the survivors, so that its outputs change least.

    Args:
        weight: shape ``(G, R, C)``: groups, outputs, inputs.
        hessian: float64, shape ``(G, C, C)``: mean of X X^T.
        kept: exactly how many weights stay, spread evenly over blocks of columns. Without effect when ``nm`` is given.
        nm: keep N of every M consecutive columns of a row; C is a multiple of M.

    Returns:
        The new weights, shape and dtype as given, and the mask of the weights that stay.
    """
    W, H = weight.double(), hessian.clone()
    diagonal = H.diagonal(dim1=1, dim2=2)
    dead = diagonal == 0
    W = W.masked_fill(dead[:, None, :], 0)  # an input that is always 0 would make H singular; its weight is 0
    damping = DAMPING * diagonal.sum(1) / (~dead).sum(1).clamp(min=1)
    diagonal.masked_fill_(dead, 1)
    U = inverse_factor(H, damping)
    M = torch.ones_like(W, dtype=torch.bool)
    columns = W.shape[2]
    block = BLOCK if nm is None else max(BLOCK // nm[1], 1) * nm[1]
    for start in range(0, columns, block):
        end = min(start + block, columns)
        if nm is None:
            quota = _quota(kept, W.numel(), end, columns) - _quota(kept, W.numel(), start, columns)
            M[:, :, start:end] = largest_mask(_scores(W, U, start, end), M[:, :, start:end], quota)
        E = torch.zeros_like(W[:, :, start:end])
        for i in range(start, end):
            if nm is not None and (i - start) % nm[1] == 0:
                M[:, :, i : i + nm[1]] = largest_of_each_row(_scores(W, U, i, i + nm[1]), nm[0])
            e = W[:, :, i].masked_fill(M[:, :, i], 0) / U[:, i, i, None]
            W[:, :, i:end] -= e[:, :, None] * U[:, None, i, i:end]
            E[:, :, i - start] = e
        W[:, :, end:] -= E @ U[:, start:end, end:]  # the columns after the block, once a block
    return W.masked_fill_(~M, 0).to(weight.dtype), M


def magnitude(weight: Tensor, kept: int, nm: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """The baseline: the largest weights stay, with the values they have. Arguments and result as ``sparsegpt``."""
    if nm is None:
        M = largest_mask(weight.abs(), torch.ones_like(weight, dtype=torch.bool), kept)
    else:
        M = largest_of_each_row(weight.abs().unflatten(2, (-1, nm[1])), nm[0]).flatten(2)
    return weight.masked_fill(~M, 0), M


def _scores(W: Tensor, U: Tensor, start: int, end: int) -> Tensor:
    """The error that removing a weight causes (eq. 3): ``(w / U_ii)^2``."""
    return (W[:, :, start:end] / U.diagonal(dim1=1, dim2=2)[:, None, start:end]).square()


def _quota(kept: int, total: int, column: int, columns: int) -> int:
    """How many of the ``kept`` weights are in the first ``column`` columns."""
    return column * total // columns - round((total - kept) * column / columns)
