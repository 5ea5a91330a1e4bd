"""Inputs of few bits: evenly spaced levels within a range that follows the inputs while the network trains.

Jacob et al. 2018 (see ``symmetric``), sections 2.1 and 3.1: a range from a moving average of each batch's least and
largest value, widened and shifted so that 0 is one of the levels. The range is a buffer, like BatchNorm's running
statistics: it travels whole, the server averages it, and evaluation uses it as it is. So the result of a sample does
not depend on the other samples of its batch.
"""

import torch
from torch import Tensor, nn

from fedsparse.quantisation.straight_through import straight_through

MOMENTUM = 0.1
"""Weight of a batch in the moving average. The paper's is smaller, for runs of millions of steps."""


class InputRange(nn.Module):
    """Quantises what a layer gets.

    Args:
        bits: of an input.

    Attributes:
        range: the least and the largest value, float32 ``(2,)``; both are 0 before the first batch, and then nothing
            is quantised.
    """

    range: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.highest, self.momentum = 2**bits - 1, MOMENTUM
        self.register_buffer("range", torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self._follow(inputs)
        low, high = self.range.unbind()
        step = (high - low) / self.highest
        zero = (-low / step).round()
        with torch.no_grad():
            whole = (inputs.float() / step + zero).round().clamp(0, self.highest)
            rounded, inside = (whole - zero) * step, (inputs >= -zero * step) & (inputs <= (self.highest - zero) * step)
            is_set = step > 0
            rounded, inside = torch.where(is_set, rounded, inputs), inside | ~is_set
        return straight_through(inputs, rounded.to(inputs.dtype), inside)

    @torch.no_grad()
    def _follow(self, inputs: Tensor) -> None:
        seen = torch.stack([inputs.min().clamp(max=0), inputs.max().clamp(min=0)]).float()
        weight = torch.where((self.range == 0).all() & (self.momentum > 0), 1.0, self.momentum)
        self.range.lerp_(seen, weight)
