"""The straight-through estimator: a gradient for functions whose derivative is 0 almost everywhere.

Bengio, Léonard and Courville, "Estimating or propagating gradients through stochastic neurons for conditional
computation", 2013, section 4.
"""

from typing import Any

import torch
from torch import Tensor


class StraightThrough(torch.autograd.Function):
    """``(values, rounded, inside) -> rounded``, with the gradient of ``values`` where ``inside`` is true.

    A sum ``values + (rounded - values).detach()`` would have the same gradient, but would round once more.
    """

    generate_vmap_rule = True  # for clients that train stacked

    @staticmethod
    def forward(values: Tensor, rounded: Tensor, inside: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


def straight_through(values: Tensor, rounded: Tensor, inside: Tensor | None = None) -> Tensor:
    """``rounded``, whose gradient goes to ``values`` unchanged, but only where ``inside`` (bool; None: everywhere)."""
    everywhere = torch.ones((), dtype=torch.bool, device=values.device)
    passed: Tensor = StraightThrough.apply(values, rounded, everywhere if inside is None else inside)
    return passed
