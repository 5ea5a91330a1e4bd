"""A threshold from the normal distribution: the magnitude that ``k`` of n normal coordinates would exceed.

Shi, Chu, Cheung and See, "Understanding Top-k Sparsification in Distributed Deep Learning", 2019, algorithm 1
(GaussianK). The algorithm corrects the threshold at most four times, by a half each time. Updates have heavy tails, for
which that is not enough: published code sends 26 times too many coordinates or too few. Here bisection goes on until
the count is within a third of ``k``. Published code selects from each tensor, as ``--scope layer`` does; the default
here is the whole update.
"""

import math

from scipy.special import ndtri

from fedsparse.compression.arrays import Array, magnitudes_of, sum_of_squares
from fedsparse.compression.near import near_threshold, select_near
from fedsparse.compression.selection import Part


class Gaussian:
    """Keeps about the ``k`` largest magnitudes of each part."""

    def indices(self, vector: Array, parts: list[Part], memory: dict[str, Array], seed: int) -> list[Array]:
        return [gaussian_indices(vector[start:stop], k) + start for start, stop, k in parts]


def gaussian_indices(part: Array, k: int) -> Array:
    """Sorted int64 indices of about the ``k`` largest magnitudes of ``part``, float32."""
    magnitudes = magnitudes_of(part)
    highest = float(magnitudes.max())
    quantile = float(ndtri(1 - k / len(part) / 2))  # both tails
    mean = float(part.mean())
    guess = abs(mean) + math.sqrt(max(0.0, sum_of_squares(part) / len(part) - mean * mean)) * quantile
    guess = guess if guess < highest else highest  # also when the sum overflowed, so that guess is NaN
    return select_near(magnitudes, k, near_threshold(magnitudes, k, guess, 0.0, highest))
