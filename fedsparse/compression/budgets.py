"""How many coordinates an update may send, and how many of them each part gets."""

import math

import numpy as np

from fedsparse.vector import Layout

CHUNK = 4096
"""Coordinates of a chunk, as in SparseLoCo (2025)."""


def warmup_density(density: float, round: int, rounds: int) -> float:
    """The density of ``round`` (from 1), which falls exponentially for ``rounds`` rounds and is ``density`` after them.

    Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.3: four warm-up epochs to 0.001 have the densities
    0.25, 0.063, 0.016 and 0.004.
    """
    return density ** min(1.0, round / (rounds + 1)) if rounds > 0 else density


def parts_of(layout: Layout, scope: str) -> list[tuple[int, int]]:
    """Start and end of each part of the parameters that is selected from on its own: not empty, in order.

    Args:
        scope: ``global`` for one part, ``layer`` for the entries, ``chunk`` for pieces of at most ``CHUNK`` of them.
    """
    ranges = [(0, layout.parameters)]
    if scope != "global":
        ranges = [(e.start, e.start + e.size) for e in layout.trainable]
    if scope == "chunk":
        ranges = [(at, min(at + CHUNK, end)) for start, end in ranges for at in range(start, end, CHUNK)]
    return [(start, end) for start, end in ranges if end > start]


def proportional(sizes: np.ndarray, density: float) -> np.ndarray:
    """``density`` of each size, at least one: int64, shape of ``sizes`` (int64, each above 0)."""
    return np.array([min(n, max(1, math.floor(density * n + 0.5))) for n in sizes.tolist()])


def by_energy(sizes: np.ndarray, energies: np.ndarray, density: float) -> np.ndarray:
    """As many in all as :func:`proportional` gives, shared between the parts in proportion to their ``energies``.

    Each part gets at least one and at most all of its coordinates. When a share is larger than its part, the other
    parts get the excess.

    Args:
        sizes: int64, shape ``(parts,)``, each above 0.
        energies: of the parts, not negative.
        density: share of all coordinates, in (0, 1].
    """
    total = int(proportional(sizes, density).sum())
    if not 0 < energies.sum() < math.inf:
        return proportional(sizes, density)
    # Each part gets a tiny weight for its size, so that parts without energy can take the excess of full parts.
    weights = energies / energies.sum() + 1e-9 * sizes / sizes.sum()
    shares, full = np.zeros(sizes.size), np.zeros(sizes.size, bool)
    while not full.all():
        shares = np.where(full, sizes, (total - sizes[full].sum()) * weights / weights[~full].sum())
        over = ~full & (shares >= sizes)
        if not over.any():
            break
        full |= over
    counts = np.clip(np.floor(shares), 1, sizes).astype(np.int64)
    # Rounding down leaves some coordinates, which go to the parts with the largest fractions. If instead the minimum of
    # one for each part gave too many coordinates, the largest counts lose them.
    while (missing := total - int(counts.sum())) > 0:
        fractions = np.where(counts < sizes, shares - counts, -np.inf)
        counts[np.argsort(-fractions, kind="stable")[: min(missing, int((counts < sizes).sum()))]] += 1
    for _ in range(-missing):
        counts[np.argmax(counts)] -= 1
    return counts
