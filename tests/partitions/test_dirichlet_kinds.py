"""Three distributions are called Dirichlet in this field; two against their authors' rule, client by client."""

import numpy as np
import pytest

from fedsparse.partitions import dirichlet, dirichlet_per_client, dirichlet_self_balancing, partition
from fedsparse.partitions.picture import class_histogram
from fedsparse.partitions.split import OwnersFunction

CIFAR10 = np.repeat(np.arange(10), 5000)  # its training labels, but for their order
KINDS = {"all": dirichlet, "per client": dirichlet_per_client, "self-balancing": dirichlet_self_balancing}


def largest_class(counts: np.ndarray) -> float:
    """The share of a client's largest class, the mean over clients by size; ``counts`` is (clients, classes)."""
    return float(counts.max(axis=1).sum() / counts.sum())


def split(owners: OwnersFunction, beta: float, seed: int, labels: np.ndarray = CIFAR10, floor: int = 10) -> np.ndarray:
    """(clients, classes) samples of 100 clients."""
    return class_histogram(labels, partition(labels, owners, 100, seed=seed, beta=beta, min_samples=floor), 10)


def self_balancing_by_hand(clients: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """The rule of NIID-Bench and FedRTS, client by client: (clients, classes) samples."""
    holdings = np.zeros((clients, 10), int)
    while holdings.sum(axis=1).min() < 10:
        holdings[:] = 0
        for k in range(10):
            shares = rng.dirichlet([beta] * clients)
            for client in range(clients):
                if holdings[client].sum() >= len(CIFAR10) / clients:
                    shares[client] = 0
            ends = [int(sum(shares[: client + 1]) / shares.sum() * 5000) for client in range(clients - 1)]
            holdings[:, k] = np.diff([0, *ends, 5000])
    return holdings


def per_client_by_hand(clients: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """The rule of Hsu et al., one sample after the other, the clients in random order: (clients, classes) samples."""
    mixtures, stock = rng.dirichlet([beta] * 10, size=clients), np.full(10, len(CIFAR10) // 10)
    holdings = np.zeros((clients, 10), int)
    for client in rng.permutation(np.repeat(np.arange(clients), len(CIFAR10) // clients)):
        shares = mixtures[client] * (stock > 0) + 1e-12 * (stock > 0)
        k = int(np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(), side="right"))
        holdings[client, k] += 1
        stock[k] -= 1
    return holdings


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_self_balancing_is_the_rule_of_its_authors_to_the_sample(beta: float) -> None:
    for seed in range(3):
        by_hand = self_balancing_by_hand(100, beta, np.random.default_rng(seed))
        ours = split(dirichlet_self_balancing.owners, beta, seed)
        assert np.abs(ours - by_hand).max() <= 1  # a float's last bit may move a cut by one sample
        assert ours.sum(axis=1).min() >= 10


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_clients_of_equal_size_have_the_class_shares_of_the_rule_drawn_sample_by_sample(beta: float) -> None:
    ours = [split(dirichlet_per_client.owners, beta, seed) for seed in range(8)]
    by_hand = [per_client_by_hand(100, beta, np.random.default_rng(seed)) for seed in range(3)]
    assert all((counts.sum(axis=1) == 500).all() and (counts.sum(axis=0) == 5000).all() for counts in ours)
    assert np.mean([*map(largest_class, ours)]) == pytest.approx(np.mean([*map(largest_class, by_hand)]), abs=0.03)
    sorted_shares = [np.sort(np.concatenate(many) / 500, axis=1).mean(axis=0) for many in (ours, by_hand)]
    np.testing.assert_allclose(*sorted_shares, atol=0.03)  # of the smallest class of a client to its largest


@pytest.mark.parametrize(
    ("kind", "beta", "share"),
    [
        ("all", 0.5, 0.38),
        ("all", 0.1, 0.65),
        ("per client", 0.5, 0.37),
        ("per client", 0.1, 0.61),
        ("self-balancing", 0.5, 0.44),
        ("self-balancing", 0.1, 0.76),
    ],
)
def test_the_same_beta_means_other_data_in_each_of_the_three(kind: str, beta: float, share: float) -> None:
    shares = [largest_class(split(KINDS[kind].owners, beta, seed)) for seed in range(8)]
    assert np.mean(shares) == pytest.approx(share, abs=0.02)


def test_a_floor_that_no_draw_reaches_is_kept_by_moving_samples_which_are_counted() -> None:
    labels = np.repeat(np.arange(10), 30)
    result = partition(labels, dirichlet_self_balancing.owners, 100, seed=0, beta=0.01, min_samples=3, name="balancing")
    assert result.sizes.tolist() == [3] * 100
    assert result.moved > 0
    assert result.name == "balancing, beta 0.01, at least 3 samples"


def test_equal_sizes_differ_by_at_most_one_sample() -> None:
    labels = np.arange(1003) % 7
    assert np.ptp(partition(labels, dirichlet_per_client.owners, 10, seed=1, beta=1e-5).sizes) == 1
