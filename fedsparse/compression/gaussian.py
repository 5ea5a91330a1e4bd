"""A threshold from the normal distribution: the quantile that a normal update would exceed with the asked density.

Shi, Chu, Cheung and See, "Understanding Top-k Sparsification in Distributed Deep Learning", 2019, algorithm 1
(GaussianK). Its four corrections by a half or by half as much again stop wherever they are; updates have heavy tails,
and published code then sends 26 times too many or too few. Here bisection goes on until the count is within a third.
"""

import math

from scipy.special import ndtri

from fedsparse.compression.client_state import Array, ClientState, squares
from fedsparse.compression.near import magnitudes_of, near_threshold, select_near
from fedsparse.compression.selection import Part, Selected, accumulate


class Gaussian:
    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        vector = accumulate(update, state)
        return Selected(vector, [gaussian_indices(vector[a:b], k) + a for a, b, k in parts])


def gaussian_indices(part: Array, k: int) -> Array:
    """Sorted indices of about the ``k`` largest magnitudes of ``part``, float32."""
    magnitudes = magnitudes_of(part)
    largest = float(magnitudes.max())
    quantile = float(ndtri(1 - k / len(part) / 2))  # both tails
    mean = float(part.mean())
    guess = abs(mean) + math.sqrt(max(0.0, squares(part) / len(part) - mean * mean)) * quantile
    guess = guess if guess < largest else largest
    return select_near(magnitudes, k, near_threshold(magnitudes, k, guess, 0.0, largest))
