"""Weights of 1 bit: their sign times a step for each channel.

Courbariaux, Bengio and David, "BinaryConnect: training deep neural networks with binary weights during propagations",
NeurIPS 2015, sections 2.3 and 2.4: signs in both passes, and float weights that take the updates and are of no use
beyond -1 and 1 (there they are clipped, here their gradient stops). The step: Rastegari et al., "XNOR-Net", ECCV 2016,
equation 6, the mean magnitude of each output channel, which of all steps is the closest.
"""

from torch import Tensor

from fedsparse.quantisation.weights import Levels, WeightQuantiser, by_channel


class Binary(WeightQuantiser):
    """Weights that a topology leaves out are 0 and stay 0; the means are over the others."""

    def levels(self, weight: Tensor) -> Levels:
        magnitude = weight.abs().flatten(1)
        step = magnitude.sum(1) / (magnitude > 0).sum(1).clamp(min=1)
        return Levels(weight.sign(), by_channel(step, weight))

    def spread(self, levels: Levels, noise: Tensor) -> Tensor:
        """Magnitudes from 0 to two steps, whose mean is a step."""
        return levels.whole * levels.step * (1 + 2 * noise)

    def inside(self, weight: Tensor) -> Tensor:
        return weight.abs() <= 1
