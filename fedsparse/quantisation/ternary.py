"""Weights of 2 bits: -1, 0 or 1 times a step for each channel.

Li, Zhang and Liu, "Ternary weight networks", 2016, section 2.2: the threshold 0.7 E|w| and the mean magnitude above it,
nearly the closest ternary weights. The paper has them for each layer; here they are for each output channel.
"""

from torch import Tensor

from fedsparse.quantisation.weights import Levels, WeightQuantiser, by_channel


class Ternary(WeightQuantiser):
    """Weights that a topology leaves out are 0 and stay 0; the means are over the others."""

    def levels(self, weight: Tensor) -> Levels:
        magnitude = weight.abs().flatten(1)
        threshold = 0.7 * magnitude.sum(1) / (magnitude > 0).sum(1).clamp(min=1)
        kept = magnitude > threshold.unsqueeze(1)
        step = (magnitude * kept).sum(1) / kept.sum(1).clamp(min=1)
        return Levels(weight.sign() * kept.view(weight.shape), by_channel(step, weight))
