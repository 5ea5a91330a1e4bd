"""A layer whose weights are a product U diag(s) V^T of low rank, with U (m, r), s (r,) and V^T (r, n) as parameters.

A linear layer is such a matrix, and takes two products in place of one. A convolution becomes two: one along the
columns of the image, and one along the rows of what comes out (Tai et al. 2016, "Convolutional neural networks with
low-rank regularization", section 3.1). Its weights (O, I, h, w) are the matrix (O w, I h), whose truncated singular
value decomposition is the best such pair (theorem 1).

The layers that this form is known from have one more vector D of scales. It adds no function to those of s, because
U diag(s) diag(D) V^T is U diag(s D) V^T; and D beside U, or beside V, is only another U or V.
"""

from typing import Any

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """The low-rank layer in place of ``old``, of which it keeps the bias.

    At the start U and V have orthonormal columns and s is constant, such that the product has the mean square of the
    weights of ``old``. A large random matrix has such singular vectors, and singular values of about one size.

    Args:
        old: a linear or convolution layer.
        rank: at least 1, at most :meth:`largest_rank`.
    """

    def __init__(self, old: Any, rank: int) -> None:
        super().__init__()
        self.old_shape = old.weight.shape
        self.down: nn.Linear | nn.Conv2d
        self.up: nn.Linear | nn.Conv2d
        self.down, self.up = _linear(old, rank) if isinstance(old, nn.Linear) else _convolutions(old, rank)
        self.s = nn.Parameter(old.weight.new_empty(rank))
        self.up.bias = old.bias
        if not old.weight.is_meta:
            u, v = (nn.init.orthogonal_(torch.empty(n, rank)) for n in matrix_of(old.weight).shape)
            self.set_factors_(u, old.weight.norm() / rank**0.5, v)

    @staticmethod
    def largest_rank(old: Any) -> int:
        """The rank of weights that are not of low rank."""
        return min(matrix_of(old.weight).shape)

    @staticmethod
    def size(old: Any, rank: int) -> int:
        """How many weights the factors have together."""
        return rank * (sum(matrix_of(old.weight).shape) + 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x)
        out: Tensor = self.up(y * (self.s if y.dim() < 4 else self.s.view(-1, 1, 1)))
        return out

    @property
    def matrix(self) -> Tensor:
        """U diag(s) V^T, in the order of :func:`matrix_of`."""
        return matrix_of(self.weight)

    @property
    def weight(self) -> Tensor:
        """The product, in the shape of the weights of the old layer."""
        return product_of(self.up.weight, self.s, self.down.weight)

    @torch.no_grad()
    def set_factors_(self, u: Tensor, s: Tensor, v: Tensor) -> None:
        """Replace the factors: U (m, r), s (r,) or one number, and V (n, r)."""
        self.up.weight.copy_(weight_of(u, self.up.weight.shape))
        self.s.copy_(s)
        self.down.weight.copy_(weight_of(v.T, self.down.weight.shape))

    def take_dense(self, state: dict[str, Tensor], name: str) -> None:
        """Become the best approximation of the old layer's weights in a state dict; see ``models.initial``."""
        weight = state.get(f"{name}.weight")
        if weight is None or weight.shape != self.old_shape:
            return
        if not self.s.is_meta:
            self.set_weight_(weight.float())
        own = {f"{name}.{key}": value for key, value in self.state_dict().items()}
        del state[f"{name}.weight"]
        state |= own | ({f"{name}.up.bias": state.pop(f"{name}.bias")} if f"{name}.bias" in state else {})

    def give_dense(self, state: dict[str, Tensor], name: str) -> None:
        """Put what :meth:`take_dense` takes into a state dict that has the factors."""
        for key in self.state_dict():
            value = state.pop(f"{name}.{key}")
            if key == "up.bias":
                state[f"{name}.bias"] = value
        state[f"{name}.weight"] = self.weight.detach()

    def set_weight_(self, weight: Tensor) -> None:
        """Become the best approximation of the weights of an old layer."""
        self.set_matrix_(matrix_of(weight))

    def set_matrix_(self, matrix: Tensor) -> None:
        """Become the truncated SVD of a matrix in the order of :func:`matrix_of`."""
        self.set_factors_(*truncated(matrix, len(self.s)))


def truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The truncated SVD: U (m, r), s (r,) and V (n, r)."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank], vt[:rank].T


def matrix_of(weight: Tensor) -> Tensor:
    """The matrix that is factored: of (O, I) the weights themselves, of (O, I, h, w) their order as (O w, I h)."""
    return weight if weight.dim() == 2 else weight.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)


def weight_of(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`matrix_of`, for weights of this shape."""
    if len(shape) == 2:
        return matrix
    outputs, inputs, height, width = shape
    return matrix.reshape(outputs, width, inputs, height).permute(0, 2, 3, 1)


def product_of(up: Tensor, s: Tensor, down: Tensor) -> Tensor:
    """The weights of the layer that computes what one with these factors does."""
    matrix = matrix_of(up) * s @ matrix_of(down)
    if up.dim() == 2:
        return matrix
    return weight_of(matrix, (up.shape[0], *down.shape[1:3], up.shape[3]))


def _linear(old: nn.Linear, rank: int) -> tuple[nn.Linear, nn.Linear]:
    return nn.Linear(old.in_features, rank, bias=False), nn.Linear(rank, old.out_features, bias=False)


def _convolutions(old: nn.Conv2d, rank: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The convolution along the columns, and the one along the rows."""

    def along(axis: int, inputs: int, outputs: int) -> nn.Conv2d:
        def only(numbers: Any, other: int) -> Any:
            if isinstance(numbers, str):  # a kind of padding
                return numbers
            return tuple(n if i == axis else other for i, n in enumerate(numbers))

        return nn.Conv2d(
            inputs, outputs, only(old.kernel_size, 1), only(old.stride, 1), only(old.padding, 0),
            only(old.dilation, 1), bias=False, padding_mode=old.padding_mode,
        )  # fmt: skip

    return along(0, old.in_channels, rank), along(1, rank, old.out_channels)
