"""Shamir's secret sharing: any ``threshold`` shares give the secret, and fewer say nothing about it.

Shamir, "How to Share a Secret", Communications of the ACM 22(11), 1979. The share at place x is the value at x of a
random polynomial of degree ``threshold - 1`` whose value at 0 is the secret, modulo a prime.
"""

import secrets
from collections.abc import Sequence

PRIME = 2**256 + 297
"""The smallest prime above all secrets of 32 bytes."""

SHARE_BYTES = 33


def split(secret: int, threshold: int, places: Sequence[int]) -> list[int]:
    """The shares of a secret, one for each place.

    Args:
        secret: from 0 to ``PRIME - 1``.
        places: distinct, from 1 to ``PRIME - 1``.
    """
    polynomial = [secret, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_value(polynomial, x) for x in places]


def _value(polynomial: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * x + coefficient) % PRIME
    return value


def factors_at_zero(places: Sequence[int]) -> list[int]:
    """Lagrange's factors of the shares at these places: the secret is the sum of factors times shares."""
    factors = []
    for x in places:
        above, below = 1, 1
        for other in places:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        factors.append(above * pow(below, -1, PRIME) % PRIME)
    return factors


def combine(factors: Sequence[int], shares: Sequence[int]) -> int:
    """The secret of ``threshold`` shares, whose places gave the factors. Other shares give a random number."""
    return sum(factor * share for factor, share in zip(factors, shares, strict=True)) % PRIME
