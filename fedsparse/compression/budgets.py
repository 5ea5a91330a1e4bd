"""How many coordinates each layer may send."""

import math

import numpy as np


def proportional(sizes: np.ndarray, density: float) -> np.ndarray:
    """``density`` of every layer, at least one: int64, shape of ``sizes`` (int64, each above 0)."""
    return np.array([min(n, max(1, math.floor(density * n + 0.5))) for n in sizes.tolist()])


def by_energy(sizes: np.ndarray, energies: np.ndarray, density: float) -> np.ndarray:
    """As many in all as :func:`proportional` gives, shared in proportion to ``energies``.

    Each layer has at least one and at most all of its coordinates; what a full one cannot take goes to the others.

    Args:
        sizes: int64, shape ``(layers,)``, each above 0.
        energies: of the layers, not negative.
        density: share of all coordinates, in (0, 1].
    """
    total = int(proportional(sizes, density).sum())
    if not 0 < energies.sum() < math.inf:
        return proportional(sizes, density)
    # A trace of every layer's size, so that what full layers leave has somewhere to go when the others did not move.
    weights = energies / energies.sum() + 1e-9 * sizes / sizes.sum()
    shares, full = np.zeros(sizes.size), np.zeros(sizes.size, bool)
    while not full.all():
        shares = np.where(full, sizes, (total - sizes[full].sum()) * weights / weights[~full].sum())
        over = ~full & (shares >= sizes)
        if not over.any():
            break
        full |= over
    counts = np.clip(np.floor(shares), 1, sizes).astype(np.int64)
    # What rounding left goes to the largest fractions; what the ones took too much comes from the largest counts.
    while (missing := total - int(counts.sum())) > 0:
        fractions = np.where(counts < sizes, shares - counts, -np.inf)
        counts[np.argsort(-fractions, kind="stable")[: min(missing, int((counts < sizes).sum()))]] += 1
    for _ in range(-missing):
        counts[np.argmax(counts)] -= 1
    return counts
