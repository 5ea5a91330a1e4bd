"""Weight sharing: the weights of a layer become the nearest of a few centroids.

Han et al. 2016 (see the package), section 3.1: k-means, started from centroids that are evenly spaced between the least
and the largest weight, because the few large weights matter more than their number.
"""

import numpy as np


def kmeans(values: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster float32 ``values``, shape ``(n,)``, by Lloyd's iteration until it stands still.

    Values on a line need no distances: the values of a cluster are neighbours in the sorted array, and their sum is a
    difference of two running sums.

    Returns:
        The centroids, float32, ascending, at most ``clusters`` and none without a value; and each value's, int64.
    """
    ordered = np.sort(values).astype(np.float64)
    centroids = np.unique(ordered)
    if centroids.size > clusters:
        centroids = _lloyd(ordered, np.linspace(ordered[0], ordered[-1], clusters))
    centroids = centroids.astype(np.float32)
    held, codes = np.unique(np.searchsorted(_middles(centroids), values, side="right"), return_inverse=True)
    return centroids[held], codes


def _lloyd(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The centroids of sorted values when no value changes its cluster any more; a cluster that lost all is dropped."""
    sums, edges = np.concatenate([[0.0], ordered.cumsum()]), np.zeros(0, np.int64)
    while True:
        inner = np.searchsorted(ordered, _middles(centroids))
        new = np.unique(np.concatenate([[0], inner, [ordered.size]]))  # the edges of an empty cluster are one
        if np.array_equal(new, edges):
            return centroids
        edges = new
        centroids = np.diff(sums[edges]) / np.diff(edges)


def _middles(centroids: np.ndarray) -> np.ndarray:
    return (centroids[1:].astype(np.float64) + centroids[:-1]) / 2
