"""Encodes an update into at most so many bytes, by trying densities."""

import math
import time
from dataclasses import replace

import numpy as np
from torch import Tensor

from fedsparse.compression.arrays import unwritable
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.codec import UpdateCodec

ENOUGH = 0.98
"""A payload of this share of the bytes is long enough."""
TRIALS = 12
STEP = 0.005
"""Densities that differ by a smaller share are not worth another trial."""


def encode_within(
    codec: UpdateCodec,
    update: Tensor | np.ndarray,
    state: ClientState,
    most: float,
    *,
    first: float,
    round: int,
    seed: int,
) -> tuple[bytes, dict[str, float], ClientState]:
    """The longest payload of at most ``most`` bytes that a few trials find; the shortest one where none is so short.

    The bytes of a payload grow with its density, but how fast depends on the update: indices that cluster are shorter,
    and so are values that repeat. Two trials are usual where ``first`` is the density of another client's update.

    Args:
        codec: of the update; its own density has no effect.
        state: of the client, which stays as it is.
        first: the density to begin with.
        round, seed: see ``UpdateCodec.encode``.

    Returns:
        The payload and its statistics, with all seconds that this took, and the client's next state.
    """
    began, encode_seconds = time.perf_counter(), 0.0
    search = _Search(most, 1 / codec.layout.parameters)
    best, density = None, first
    for _ in range(TRIALS):
        residual = None if state.residual is None else unwritable(state.residual)
        memory = {name: unwritable(array) for name, array in state.memory.items()}
        trial = replace(state, residual=residual, memory=memory)
        payload, stats = codec.encode(update, trial, round=round, seed=seed, density=density)
        encode_seconds += stats["encode_seconds"]
        if best is None or search.misses(len(payload)) < search.misses(len(best[0])):
            best = payload, stats, trial
        if not (following := search.after(density, len(payload))):
            break
        density = following
    assert best
    payload, stats, trial = best
    stats["encode_seconds"] = encode_seconds
    stats["compress_seconds"] = time.perf_counter() - began - encode_seconds
    return payload, stats, trial


class _Search:
    """Finds the density whose payload has the most bytes below a limit.

    Args:
        most: the limit.
        least: the smallest density to try.
    """

    def __init__(self, most: float, least: float) -> None:
        self.most, self.least = most, least
        self.low, self.high = (0.0, 0.0), (math.inf, math.inf)  # density and bytes: too small, and too large

    def misses(self, size: int) -> tuple[bool, float]:
        """How bad a payload of this size is, for comparison: a long one is worse than any short one."""
        return size > self.most, abs(size - self.most)

    def after(self, density: float, size: int) -> float | None:
        """The next density to try, when a payload at ``density`` has ``size`` bytes; None for none."""
        if ENOUGH * self.most <= size <= self.most:
            return None
        if size <= self.most:
            self.low = density, size
        else:
            self.high = density, size
        following = max(self._between(self.most * (1 + ENOUGH) / 2), self.least)
        is_narrow = self.high[0] <= max(self.low[0] * (1 + STEP), self.least)
        return None if following == self.low[0] or is_narrow else following

    def _between(self, aim: float) -> float:
        """A density for ``aim`` bytes."""
        (a, of_a), (b, of_b) = self.low, self.high
        if b == math.inf:  # as if bytes were in proportion to the density
            return min(1.0, a * aim / of_a)
        if not a:
            return b * aim / of_b
        return a + (b - a) * min(max((aim - of_a) / (of_b - of_a), 0.1), 0.9)
