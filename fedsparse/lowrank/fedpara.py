"""FedPara: weights that are an elementwise product of two products of low rank (Hyeon-Woo et al. 2022, "FedPara:
Low-rank Hadamard product for communication-efficient federated learning").

Two matrices of rank r have an elementwise product of rank up to r^2 (proposition 1), so that the layer is small but
need not be of low rank. It computes with its whole weights, and so saves bytes but no computation.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FedPara(nn.Module):
    """The layer in place of ``old``, of which it keeps the bias: W = W1 * W2, each W_i = X_i T_i Y_i^T.

    Of a linear layer, X_i is (O, r), Y_i is (I, r), and there is no T_i. Of a convolution, T_i is a kernel of r to r
    channels (proposition 3). At the start all are normal, such that W has the mean square of the weights of ``old``.

    Args:
        old: a linear or convolution layer.
        rank: of each of the two products, at least 1, at most :meth:`largest_rank`.
    """

    def __init__(self, old: Any, rank: int) -> None:
        super().__init__()
        outputs, inputs, *kernel = old.weight.shape
        shapes = {"x": (2, outputs, rank), "y": (2, inputs, rank)} | ({"t": (2, rank, rank, *kernel)} if kernel else {})
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.old = old  # computes with the product; its own weights are gone
        deviation = old.weight.detach().square().mean() ** 0.25  # of W1 and of W2
        terms = rank ** (2 if kernel else 1)
        del old.weight
        for p in () if deviation.is_meta else (self.get_parameter(name) for name in shapes):
            nn.init.normal_(p, std=float((deviation / terms**0.5) ** (1 / len(shapes))))

    @staticmethod
    def largest_rank(old: Any) -> int:
        """The rank from which an elementwise product may be any matrix without being small."""
        return min(old.weight.shape[:2])

    @staticmethod
    def size(old: Any, rank: int) -> int:
        """How many weights the factors have together."""
        outputs, inputs, *kernel = old.weight.shape
        return 2 * rank * (outputs + inputs) + (2 * rank**2 * kernel[0] * kernel[1] if kernel else 0)

    @property
    def weight(self) -> Tensor:
        """The product, in the shape of the weights of the old layer."""
        factors = dict(self.named_parameters(recurse=False))
        form = "por,pir->poi" if len(factors) == 2 else "por,pis,prshw->poihw"
        first, second = torch.einsum(form, *factors.values())
        return first * second

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.old, nn.Linear):
            return F.linear(x, self.weight, self.old.bias)
        return self.old._conv_forward(x, self.weight, self.old.bias)
