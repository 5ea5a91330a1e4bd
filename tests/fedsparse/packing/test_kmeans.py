"""Weight sharing by k-means."""

import itertools

import numpy as np
import pytest

from fedsparse.packing.kmeans import kmeans


def spread(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32) ** 3


@pytest.mark.parametrize(("n", "clusters"), [(1000, 16), (300, 5), (5000, 256), (17, 16)])
def test_the_centroids_are_a_local_optimum(n: int, clusters: int) -> None:
    values = spread(n)
    centroids, codes = kmeans(values, clusters)
    assert len(centroids) <= clusters
    means = [values[codes == code].mean(dtype=np.float64) for code in range(len(centroids))]
    np.testing.assert_allclose(centroids, means, rtol=1e-5)  # each is the mean of its values
    nearest = np.abs(values[:, None] - centroids).argmin(1)
    assert np.array_equal(np.abs(values - centroids[codes]), np.abs(values - centroids[nearest]))


def test_few_values_in_two_clusters_are_split_at_one_of_the_local_optima() -> None:
    values = np.sort(spread(9, seed=3))
    splits = [(values[:i], values[i:]) for i in range(1, 9)]
    stable = [(a, b) for a, b in splits if a.max() <= (a.mean() + b.mean()) / 2 <= b.min()]
    centroids, codes = kmeans(values, 2)
    assert any(np.array_equal(values[codes == 0], a) for a, _ in stable)
    assert len(centroids) == 2


def test_no_more_distinct_values_than_clusters_come_back_exactly() -> None:
    values = np.array([0.5, -1.25, 0.5, 3.0], np.float32)
    centroids, codes = kmeans(values, 3)
    assert np.array_equal(centroids[codes], values)
    assert [len(part) for part in kmeans(np.zeros(0, np.float32), 4)] == [0, 0]


def test_the_first_centroids_are_evenly_spaced() -> None:
    """One far value keeps a cluster of its own, which centroids at random would seldom give it."""
    values = np.concatenate([spread(1000).clip(-1, 1), np.float32([50.0])])
    centroids, codes = kmeans(values, 8)
    assert centroids[-1] == 50
    assert (codes == codes[-1]).sum() == 1
    assert all(a < b for a, b in itertools.pairwise(centroids))
