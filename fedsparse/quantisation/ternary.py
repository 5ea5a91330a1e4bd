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
        """Magnitudes up to the threshold T, and around the step from T on.

        Of the n weights that exist, k are not 0; a and b are the sums of twice the noise, of these and of the others
        without signs. The magnitudes have the sum k step + a (step - T) + b T, whose 0.7 n-th part T must be.
        """
        whole, step = levels

        def sums(values: Tensor) -> Tensor:
            return by_channel(values.flatten(1).sum(1), whole)

        n, k = sums((noise != 0) | (whole != 0)), sums(whole.abs())
        a, b = sums(2 * noise * whole.abs()), sums((2 * noise * (whole == 0)).abs())
        threshold = 0.7 * step * (k + a) / (n + 0.7 * (a - b)).clamp(min=1e-9)
        return torch.where(whole == 0, 2 * noise * threshold, whole * (step + 2 * noise * (step - threshold)))
