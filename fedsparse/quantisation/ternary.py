"""Weights of 2 bits: -1, 0 or 1 times a step for each channel.

Li, Zhang and Liu, "Ternary weight networks", 2016, section 2.2: the threshold 0.7 E|w| and the mean magnitude above it,
nearly the closest ternary weights. The paper has them for each layer; here they are for each output channel.
"""

import torch
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

    def spread(self, levels: Levels, noise: Tensor) -> Tensor:
        """Magnitudes up to the threshold, and evenly around the step from there on.

        With a share p of such ones, the mean magnitude is p step + (1 - p) threshold / 2; the threshold is 0.7 of that.
        """
        whole, step = levels
        exist = ((noise != 0) | (whole != 0)).flatten(1).sum(1).clamp(min=1)
        p = by_channel(whole.abs().flatten(1).sum(1) / exist, whole)
        threshold = 0.7 * p * step / (1 - 0.35 * (1 - p))
        return torch.where(whole == 0, 2 * noise * threshold, whole * (step + 2 * noise * (step - threshold)))
