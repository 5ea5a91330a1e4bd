"""Means over seeds, and their 95% confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the half width of its 95% confidence interval (Student's t); NaN for a single seed."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        return cls(*map(float, mean_and_half_width(values)))

    @property
    def low(self) -> float:
        """Where the interval begins; the mean where there is no interval."""
        return self.mean - np.nan_to_num(self.half_width)

    @property
    def high(self) -> float:
        """Where the interval ends; the mean where there is no interval."""
        return self.mean + np.nan_to_num(self.half_width)


UNKNOWN = Estimate(math.nan, math.nan)
"""Of what no run has measured."""


def mean_and_half_width(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean along the first axis, which is that of the seeds, and the half width of its interval."""
    values = np.asarray(values, np.float64)
    n = len(values)
    if n < 2:
        return values.mean(axis=0), np.full(values.shape[1:], math.nan)
    return values.mean(axis=0), stdtrit(n - 1, 0.975) * values.std(axis=0, ddof=1) / math.sqrt(n)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """The mean difference, seed by seed: what a seed does to both, such as its partition, is in no difference.

    Args:
        values, baseline: by seed.
    """
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    return Estimate.of(differences) if differences else UNKNOWN
