"""What the quantisers of weights have in common: whole levels times a step."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedsparse.quantisation.straight_through import straight_through


class Levels(NamedTuple):
    """A quantised weight tensor, ``whole * step``.

    Attributes:
        whole: whole numbers as float32, of the shape of the weight.
        step: float32, one for each output channel, shape ``(channels, 1, ...)``, or one for all, shape ``(1, 1, ...)``.
    """

    whole: Tensor
    step: Tensor


def by_channel(channels: Tensor, weight: Tensor) -> Tensor:
    """One value for each output channel, in a shape that goes with ``weight``."""
    return channels.view(-1, *[1] * (weight.dim() - 1))


class WeightQuantiser(nn.Module, ABC):
    """Quantises a weight tensor in the forward pass; its gradient goes straight through.

    Args:
        bits: of a weight.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    @abstractmethod
    def levels(self, weight: Tensor) -> Levels:
        """The quantised ``weight``, of any shape whose first dimension is the output channels."""

    @abstractmethod
    def spread(self, levels: Levels, noise: Tensor) -> Tensor:
        """Float weights with these ``levels``, but that the step may be slightly another.

        Args:
            noise: uniform in [-1/2, 1/2), decides where each weight lies; 0 for one that does not exist.
        """

    def inside(self, weight: Tensor) -> Tensor | None:
        """Where the gradient passes, as for ``straight_through``."""
        return None

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            whole, step = self.levels(weight)
            rounded = whole * step
        return straight_through(weight, rounded, self.inside(weight))
