"""Weights of 3 to 8 bits: evenly spaced levels, the same number on both sides of 0, with a step for each channel.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018,
section 3: rounding in the forward pass, float weights in the backward pass, levels -127 to 127. A step for each output
channel, symmetric: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 3.1.
BatchNorm behind the layer multiplies each channel by a number. With a step for each channel it multiplies the steps and
leaves the levels, so that the network computes the same whether it is folded into the weights (section 3.2 of the first
paper) before or after they are quantised.
"""

import torch
from torch import Tensor

from fedsparse.quantisation.weights import Levels, WeightQuantiser, by_channel


class Symmetric(WeightQuantiser):
    """The largest magnitude of each channel is the highest of its ``2^(bits - 1) - 1`` positive levels."""

    def levels(self, weight: Tensor) -> Levels:
        highest = 2 ** (self.bits - 1) - 1
        step = by_channel(weight.abs().flatten(1).amax(1) / highest, weight)
        # A step that is too small for a float32 is 0, as is its channel.
        whole = torch.where(step > 0, weight / step, 0).round().clamp(-highest, highest)
        return Levels(whole, step)

    def spread(self, levels: Levels, noise: Tensor) -> Tensor:
        """Evenly over what rounds to each level; the highest levels stay, because the step depends on them."""
        whole, step = levels
        return (whole + noise * (whole.abs() < 2 ** (self.bits - 1) - 1)) * step
