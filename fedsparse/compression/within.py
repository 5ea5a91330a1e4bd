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
    low, high, density = (0.0, 0.0), (math.inf, math.inf), first  # density and bytes: too small, and too large
    one = 1 / codec.layout.parameters
    best: tuple[bytes, dict[str, float], ClientState] | None = None
    for _ in range(TRIALS):
        residual = None if state.residual is None else unwritable(state.residual)
        memory = {name: unwritable(array) for name, array in state.memory.items()}
        trial = replace(state, residual=residual, memory=memory)
        payload, stats = codec.encode(update, trial, round=round, seed=seed, density=density)
        encode_seconds += stats["encode_seconds"]
        size = len(payload)
        if best is None or (size > most, abs(size - most)) < (len(best[0]) > most, abs(len(best[0]) - most)):
            best = payload, stats, trial
        if ENOUGH * most <= size <= most:
            break
        low, high = ((density, size), high) if size <= most else (low, (density, size))
        density = max(_between(low, high, most * (1 + ENOUGH) / 2), one)
        if density == low[0] or high[0] <= max(low[0] * (1 + STEP), one):
            break
    assert best
    payload, stats, trial = best
    stats["encode_seconds"] = encode_seconds
    stats["compress_seconds"] = time.perf_counter() - began - encode_seconds
    return payload, stats, trial


def _between(low: tuple[float, int | float], high: tuple[float, int | float], aim: float) -> float:
    """The next density to try, for ``aim`` bytes."""
    (a, of_a), (b, of_b) = low, high
    if b == math.inf:  # as if bytes were in proportion to the density
        return min(1.0, a * aim / of_a)
    if not a:
        return b * aim / of_b
    return a + (b - a) * min(max((aim - of_a) / (of_b - of_a), 0.1), 0.9)
