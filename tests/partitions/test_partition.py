"""Partitions: common properties of all distributions, and the definition of each one."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.partitions import (
    DataError,
    Partition,
    dirichlet,
    dirichlet_per_client,
    dirichlet_self_balancing,
    embedded,
    iid,
    partition,
    shards,
    split_holdout,
)
from fedsparse.partitions.dirichlet import proportions
from fedsparse.partitions.picture import class_histogram
from fedsparse.partitions.split import OwnersFunction, raise_to_floor

DISTRIBUTIONS: dict[str, OwnersFunction] = {
    "iid": iid.owners,
    "dirichlet": dirichlet.owners,
    "dirichlet-per-client": dirichlet_per_client.owners,
    "dirichlet-self-balancing": dirichlet_self_balancing.owners,
    "shards": shards.owners,
}
BALANCED = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 600))


@st.composite
def demands(draw: st.DrawFn) -> tuple[np.ndarray, dict]:
    """Labels of any balance, with gaps, and settings that they can meet."""
    classes = draw(st.integers(1, 6))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=120))) * draw(st.integers(1, 3))
    clients = draw(st.integers(1, len(labels)))
    return labels, {
        "clients": clients,
        "classes_per_client": draw(st.integers(1, min(len(np.unique(labels)), len(labels) // clients))),
        "min_samples": draw(st.integers(0, len(labels) // clients)),
        "beta": draw(st.sampled_from([1e-300, 1e-5, 0.01, 0.1, 1.0, 100.0, 1e9])),
        "seed": draw(st.integers(0, 2**63)),
    }


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@given(demand=demands())
def test_every_sample_has_exactly_one_owner_and_no_client_is_below_the_floor(
    distribution: str, demand: tuple[np.ndarray, dict]
) -> None:
    labels, settings = demand
    result = partition(labels, DISTRIBUTIONS[distribution], **settings)
    assert len(result) == settings["clients"]
    assert result.order.dtype == result.offsets.dtype == np.int64
    assert sorted(result.order) == list(range(len(labels)))
    assert result.sizes.min() >= settings["min_samples"]
    for client in range(len(result)):
        assert (np.diff(result[client]) > 0).all()  # ascending
    again = partition(torch.from_numpy(labels), DISTRIBUTIONS[distribution], **settings)
    assert np.array_equal(result.order, again.order)
    assert np.array_equal(result.offsets, again.offsets)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_another_seed_gives_another_partition(distribution: str) -> None:
    orders = [partition(BALANCED, DISTRIBUTIONS[distribution], 20, seed=seed).order for seed in range(3)]
    assert not any(np.array_equal(orders[a], orders[b]) for a, b in ((0, 1), (1, 2), (0, 2)))


def test_a_seed_gives_the_same_partition_today_as_ever() -> None:
    labels = np.arange(40) % 4
    found = {
        name: partition(labels, owners, 4, seed=7, beta=0.5).order[:6].tolist()
        for name, owners in DISTRIBUTIONS.items()
    }
    assert found == {
        "iid": [4, 8, 15, 18, 19, 23],
        "dirichlet": [0, 1, 3, 4, 5, 7],
        "dirichlet-per-client": [1, 2, 5, 13, 17, 25],
        "dirichlet-self-balancing": [0, 1, 3, 4, 5, 9],
        "shards": [0, 4, 6, 10, 14, 22],
    }


@pytest.mark.parametrize(
    ("distribution", "moved", "name", "sha256"),
    [
        ("iid", 0, "iid", "1de66ccc2915214d353dd5332c80829a621078f675c6b5729b64b98e4832d79f"),
        ("dirichlet", 4, "dirichlet, beta 0.1", "3d53a89b8924eb85275e22487e1edbe2fa5306d59e201971ae96eb7e8240d9d4"),
        ("shards", 0, "shards, 2 classes a client", "4c74cd735eed08662e9c99bdcb86d281ad3c488441af7fe15370d69ad02a5d44"),
    ],
)
def test_the_embedded_data_are_split_today_as_ever(distribution: str, moved: int, name: str, sha256: str) -> None:
    labels, owners = embedded.load(Path()).y_train, DISTRIBUTIONS[distribution]
    result = partition(labels, owners, 100, seed=0, name=distribution, beta=0.1, min_samples=2)
    assert (result.moved, result.name) == (moved, name)
    assert hashlib.sha256(result.order.tobytes() + result.offsets.tobytes()).hexdigest() == sha256


def test_iid_sizes_differ_by_at_most_one_and_classes_are_spread() -> None:
    result = partition(BALANCED, iid.owners, 7, seed=0)
    assert np.ptp(result.sizes) == 1
    counts = class_histogram(BALANCED, result, 10)
    assert counts.min() > 50
    assert counts.max() < 125  # 85.7 expected, deviation 8.5


def test_dirichlet_proportions_have_the_mean_and_the_variance_of_the_distribution() -> None:
    clients, draws = 5, 20_000
    for beta in (0.1, 1.0, 10.0):
        shares = proportions(draws, clients, beta, np.random.default_rng(0))
        mean, variance = 1 / clients, (1 / clients) * (1 - 1 / clients) / (clients * beta + 1)
        np.testing.assert_allclose(shares.mean(axis=0), mean, atol=5 * np.sqrt(variance / draws))
        np.testing.assert_allclose(shares.var(axis=0), variance, rtol=0.06)
        covariance = np.cov(shares[:, 0], shares[:, 1])[0, 1]
        np.testing.assert_allclose(covariance, -variance / (clients - 1), rtol=0.15)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_a_partition_has_the_class_shares_of_the_dirichlet_distribution(beta: float) -> None:
    clients, per_class = 4, 600
    shares = np.concatenate(
        [
            class_histogram(BALANCED, partition(BALANCED, dirichlet.owners, 4, seed=s, beta=beta, min_samples=0), 10)
            for s in range(300)
        ],
        axis=1,
    ).T / per_class  # fmt: skip
    variance = (1 / clients) * (1 - 1 / clients) / (clients * beta + 1)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / clients, atol=5 * np.sqrt(variance / len(shares)))
    np.testing.assert_allclose(shares.var(axis=0), variance, rtol=0.1)


def test_dirichlet_counts_are_within_one_sample_of_the_drawn_shares() -> None:
    rng = np.random.default_rng(3)
    shares = proportions(10, 50, 0.3, rng)
    counts = class_histogram(BALANCED, partition(BALANCED, dirichlet.owners, 50, seed=3, beta=0.3, min_samples=0), 10)
    assert np.abs(counts.T - shares * 600).max() < 1


def test_a_large_beta_is_nearly_iid_and_a_small_one_gives_each_class_to_one_client() -> None:
    even = class_histogram(BALANCED, partition(BALANCED, dirichlet.owners, 10, seed=0, beta=1e6), 10)
    assert np.abs(even - 60).max() <= 2
    owners = class_histogram(BALANCED, partition(BALANCED, dirichlet.owners, 10, seed=0, beta=1e-6, min_samples=0), 10)
    assert (np.count_nonzero(owners, axis=0) == 1).all()


@pytest.mark.parametrize("classes_per_client", [1, 2, 5])
def test_shards_are_few_classes_and_equal_sizes_as_in_the_paper(classes_per_client: int) -> None:
    result = partition(BALANCED, shards.owners, 100, seed=0, classes_per_client=classes_per_client)
    assert (result.sizes == 60).all()
    held = np.count_nonzero(class_histogram(BALANCED, result, 10), axis=1)
    assert held.max() <= classes_per_client
    assert result.moved == 0


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 1000))
def test_each_shard_crosses_at_most_one_class_border(clients: int, wanted: int, seed: int) -> None:
    labels = BALANCED[: 1000 + seed]
    result = partition(labels, shards.owners, clients, seed=seed, classes_per_client=wanted)
    assert np.ptp(result.sizes) <= wanted
    if clients * wanted >= 20:  # else a shard is longer than a class
        assert np.count_nonzero(class_histogram(labels, result, 10), axis=1).max() <= 2 * wanted


def floor_oracle(sizes: list[int], floor: int) -> list[int]:
    """Move one sample at a time from the largest client to a client below the floor."""
    while min(sizes) < floor:
        sizes[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(min(sizes))] += 1
    return sorted(sizes)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.data())
def test_the_floor_moves_as_few_samples_as_possible_from_the_largest(sizes: list[int], data: st.DataObject) -> None:
    floor = data.draw(st.integers(0, sum(sizes) // len(sizes)))
    owners = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    result, moved = raise_to_floor(owners, len(sizes), floor, np.random.default_rng(1))
    assert sorted(np.bincount(result, minlength=len(sizes))) == floor_oracle(list(sizes), floor)
    assert moved == sum(max(floor - size, 0) for size in sizes)
    changed = owners != result
    assert changed.sum() == moved


def test_the_samples_that_the_floor_moved_are_counted() -> None:
    free = partition(BALANCED, dirichlet.owners, 100, seed=0, beta=0.05, min_samples=0)
    held = partition(BALANCED, dirichlet.owners, 100, seed=0, beta=0.05, min_samples=10)
    assert free.moved == 0
    assert held.moved == np.maximum(10 - free.sizes, 0).sum() > 0
    assert (class_histogram(BALANCED, held, 10) != class_histogram(BALANCED, free, 10)).sum() <= 2 * held.moved


IMPOSSIBLE: list[tuple[dict, str]] = [
    ({"clients": 0}, "clients is 0"),
    ({"seed": -1}, "seed -1"),
    ({"min_samples": -1}, "min_samples -1"),
    ({"clients": 601, "min_samples": 10}, "601 clients with at least 10 samples each need 6010 samples, but there are"),
    ({"beta": 0.0}, "beta is 0.0; it must be above 0 and at most 1e"),
    ({"beta": -1.0}, "beta is -1.0"),
    ({"beta": float("nan")}, "beta is nan"),
    ({"beta": float("inf")}, "beta is inf"),
    ({"beta": 1e308}, r"beta is 1e\+308"),
    ({"owners": shards.owners, "classes_per_client": 11}, "classes_per_client is 11; it must be 1 to 10"),
    ({"owners": shards.owners, "classes_per_client": 0}, "classes_per_client is 0"),
    ({"owners": shards.owners, "clients": 3001}, "3001 clients with 2 shards each need at least 6002 samples, but"),
]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE)
def test_an_impossible_demand_is_one_line(changes: dict, message: str) -> None:
    settings = {"owners": dirichlet.owners, "clients": 10, "seed": 0} | changes
    with pytest.raises(DataError, match=message) as caught:
        partition(BALANCED, **settings)
    assert "\n" not in str(caught.value)


def test_a_client_that_does_not_exist_is_an_index_error() -> None:
    result = Partition(np.arange(3), np.array([0, 1, 3]))
    assert [result[client].tolist() for client in range(2)] == [[0], [1, 2]]
    assert [part.tolist() for part in result] == [[0], [1, 2]]
    for client in (2, -1):
        with pytest.raises(IndexError):
            result[client]


def test_a_hundred_thousand_clients_take_less_than_a_few_seconds(timed: Callable[[], float]) -> None:
    labels = np.arange(1_000_000) % 10
    assert partition(labels, dirichlet.owners, 100_000, seed=0, beta=0.1).sizes.min() >= 1
    assert timed() < 5


@given(st.integers(0, 60), st.floats(0, 0.99), st.integers(0, 99))
def test_held_out_samples_are_apart_and_one_is_left_for_training(count: int, fraction: float, seed: int) -> None:
    indices = np.arange(count) * 3 + 1
    train, held = split_holdout(indices, fraction, seed)
    assert sorted([*train, *held]) == indices.tolist()
    assert len(held) == min(round(fraction * count), max(count - 1, 0))
    assert len(train) >= min(count, 1)
    assert all((np.diff(part) > 0).all() for part in (train, held))
    again = split_holdout(indices, fraction, seed)
    assert np.array_equal(train, again[0])
    assert np.array_equal(held, again[1])


def test_held_out_samples_depend_on_the_seed_and_the_fraction_is_checked() -> None:
    indices = np.arange(100)
    assert not np.array_equal(split_holdout(indices, 0.2, [0, 1])[1], split_holdout(indices, 0.2, [0, 2])[1])
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="held-out fraction"):
            split_holdout(indices, fraction, 0)


@pytest.fixture
def timed() -> Callable[[], float]:
    """Seconds of processor time since the test began."""
    import time

    start = time.process_time()
    return lambda: time.process_time() - start
