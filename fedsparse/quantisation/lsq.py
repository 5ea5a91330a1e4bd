"""Learned step size quantisation: the step of a layer is a parameter, trained with the weights.

Esser et al., "Learned step size quantization", ICLR 2020, sections 2 and 2.1, and the pseudocode of its appendix.
"""

import math

from torch import Tensor, nn

from fedsparse.quantisation.straight_through import straight_through
from fedsparse.quantisation.weights import Levels, WeightQuantiser

LEAST = 1e-8
"""The least step, because training may bring a step to 0 or below, where it has no meaning."""


class LearnedStep(WeightQuantiser):
    """The levels ``-Q_N`` to ``Q_P``, ``Q_N = 2^(bits - 1)`` and ``Q_P = Q_N - 1``, times the step ``s`` of the layer.

    Args:
        weight: the initial weights, on which the initial step depends.
    """

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__(bits)
        self.lowest, self.highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.step = nn.Parameter(self.initial(weight))

    def initial(self, weight: Tensor) -> Tensor:
        """2 E|v| / sqrt(Q_P), shape ``(1,)``."""
        return (2 * weight.detach().abs().mean() / math.sqrt(self.highest)).reshape(1)

    def levels(self, weight: Tensor) -> Levels:
        step = self.step.clamp(min=LEAST).view(*[1] * weight.dim())
        return Levels((weight / step).clamp(self.lowest, self.highest).round(), step)

    def spread(self, levels: Levels, noise: Tensor) -> Tensor:
        """Evenly over what rounds to each level, but not beyond the outermost, where a weight has no gradient."""
        ratio = levels.whole + noise
        return (2 * ratio.clamp(self.lowest, self.highest) - ratio) * levels.step  # reflected at the outermost

    def forward(self, weight: Tensor) -> Tensor:
        scale = 1 / math.sqrt(weight.numel() * self.highest)
        step = self.step.clamp(min=LEAST)
        step = straight_through(step * scale, step)  # the paper's gradscale: the step, with a scaled gradient
        ratio = (weight / step).clamp(self.lowest, self.highest)  # equation 1; autograd makes equations 3 and 5 of it
        return straight_through(ratio, ratio.round()) * step
