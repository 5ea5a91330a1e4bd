"""Histograms small enough to be kept for every layer and evaluation."""

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 64


class Histogram(NamedTuple):
    """How values are distributed, over ``BINS`` bins of equal width between the smallest and the largest value.

    Attributes:
        low, high: the smallest and the largest value.
        number, sum, squares: of the values; their sum, and the sum of their squares.
        counts: the values in each bin, ``BINS`` of them.
    """

    low: float
    high: float
    number: int
    sum: float
    squares: float
    counts: list[float]

    @classmethod
    def of(cls, values: Tensor) -> "Histogram | None":
        """The histogram of a floating tensor of any shape on the CPU; None without values, or with infinite ones."""
        if not values.numel():
            return None
        values = values.detach().flatten().float()
        low, high = (float(end) for end in values.aminmax())
        total, squares = float(values.sum(dtype=torch.float64)), float(values.norm().double() ** 2)
        if not low - high <= 0 or abs(low) + abs(high) == float("inf"):
            return None
        counts = torch.histc(values, BINS, low, high)  # which widens the range of a constant by 1 either way
        if low == high:
            low, high = low - 1, high + 1
        return cls(low, high, values.numel(), total, squares, counts.tolist())

    @property
    def limits(self) -> list[float]:
        """The upper end of each bin."""
        width = (self.high - self.low) / BINS
        return [*(self.low + width * (bin + 1) for bin in range(BINS - 1)), self.high]
