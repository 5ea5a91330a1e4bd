"""Gaussian noise, from random bits that can be repeated or from bits that cannot be known.

The bits of a seed serve experiments. In a deployment every client knows the seed of the settings, and could subtract
noise drawn from it; so there, the bits come from the operating system.
"""

import os
from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from fedsparse.compression.arrays import blocks

Bits = Callable[[int], np.ndarray]
"""Gives so many uniform uint64 that were not given before."""


def repeatable_bits(seed: int) -> Bits:
    """The same bits for the same seed, on every machine and NumPy version."""
    return np.random.PCG64(np.random.SeedSequence(seed)).random_raw


def secret_bits(count: int) -> np.ndarray:
    """Bits of the operating system's generator for cryptography."""
    return np.frombuffer(os.urandom(8 * count), np.uint64)


def gaussian(count: int, bits: Bits) -> np.ndarray:
    """Standard normal values, float64, by the inverse of the distribution function.

    52 bits are a probability below one half, and one more is the sign, so that both tails reach as far: to 8.2.
    """
    drawn, normal = bits(count), np.empty(count)
    for block in blocks(count):
        normal[block] = ndtri(((drawn[block] >> np.uint64(12)) + 0.5) * 2.0**-53)
        normal[block] *= np.where(drawn[block] & np.uint64(1), 1.0, -1.0)
    return normal
