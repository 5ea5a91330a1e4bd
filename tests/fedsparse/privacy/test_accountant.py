"""Epsilon, against other ways to compute it."""

import sys

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.privacy.accountant import Accountant, spent
from fedsparse.sampling import sampled


def accountant(**settings: object) -> Accountant:
    return Accountant(Config.from_mapping(settings))


@pytest.mark.parametrize(
    ("clients", "cohort", "noise", "rounds"), [(1000, 50, 1.0, 100), (100, 10, 0.7, 150), (60_000, 256, 1.1, 14_062)]
)
def test_epsilon_is_that_of_the_library_for_poisson_samples_and_below_its_renyi_bound(
    clients: int, cohort: int, noise: float, rounds: int
) -> None:
    ours = accountant(clients=clients, clients_per_round=cohort, dp_noise=noise, dp_delta=1e-5)
    event = dp.PoissonSampledDpEvent(cohort / clients, dp.GaussianDpEvent(noise))
    theirs, bound = PLDAccountant(), RdpAccountant()
    theirs.compose(event, rounds)
    bound.compose(event, rounds)
    assert theirs.get_epsilon(1e-5) * 0.9999 <= ours.epsilon(rounds) <= theirs.get_epsilon(1e-5) * 1.005
    assert 0.7 * bound.get_epsilon(1e-5) < ours.epsilon(rounds) < bound.get_epsilon(1e-5)
    assert ours.release == str(event)


@pytest.mark.parametrize(("noise", "epochs", "published"), [(1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10)])
def test_epsilon_is_below_the_published_bounds_of_the_mnist_tutorial_of_tensorflow_privacy(
    noise: float, epochs: int, published: float
) -> None:
    """They are older bounds by Renyi divergences, of batches of 256 of 60,000 samples, at a delta of 1e-5."""
    ours = spent(noise, 256 / 60_000, epochs * 60_000 // 256, 1e-5)
    assert 0.7 * published < ours < published


@pytest.mark.parametrize(("noise", "releases"), [(1.0, 1), (2.0, 7), (0.3, 2)])
def test_without_sampling_epsilon_is_that_of_the_formula_of_the_gaussian_mechanism(noise: float, releases: int) -> None:
    """Balle and Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018, theorem 8."""
    mu, delta = releases**0.5 / noise, 1e-4

    def excess(epsilon: float) -> float:
        return norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta

    assert spent(noise, 1.0, releases, delta) == pytest.approx(brentq(excess, 0, 200), rel=1e-3)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.5, 0.02)])
def test_epsilon_of_one_sampled_release_is_that_of_its_two_densities(noise: float, rate: float) -> None:
    def without(x: float) -> float:
        return float(norm.pdf(x, 0, noise))

    def with_client(x: float) -> float:
        return float((1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, 1, noise))

    epsilon = spent(noise, rate, 1, 1e-3)
    deltas = [
        quad(lambda x, p=p, q=q: max(p(x) - np.exp(epsilon) * q(x), 0), -12, 13, limit=2000, points=[0, 1, 3])[0]
        for p, q in ((with_client, without), (without, with_client))
    ]
    assert max(deltas) == pytest.approx(1e-3, rel=2e-2)


@pytest.mark.parametrize("by", ["server", "clients"])
def test_the_noise_for_an_epsilon_is_the_smallest_that_keeps_to_it(by: str) -> None:
    wanted = {"clients": 500, "clients_per_round": 20, "rounds": 60, "dp_noise_by": by, "compressor": "none"}
    found = accountant(**wanted, dp_epsilon=3)
    assert 2.97 < found.epsilon(60) <= 3
    assert accountant(**wanted, dp_noise=found.noise * 0.998).epsilon(60) > 3


def test_where_clients_add_noise_a_round_costs_the_clients_that_it_asks() -> None:
    ours = accountant(clients=20, clients_per_round=5, rounds=30, dp_noise=2, dp_noise_by="clients", compressor="none")
    for round in (30, 1, 7):
        asked = np.bincount([client for r in range(1, round + 1) for client in sampled(ours.config, r)])
        assert ours.epsilon(round) == spent(2, 1.0, int(asked.max()), 20**-1.1)
    assert ours.release == str(dp.GaussianDpEvent(2.0))


def test_delta_is_by_default_below_one_in_a_client() -> None:
    assert accountant(clients=1000, dp_noise=1).delta == pytest.approx(1000**-1.1)
    assert accountant(clients=1000, dp_noise=1, dp_delta=1e-9).delta == 1e-9


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigError, match=r"need dp-accounting, pip install 'fedsparse\[dp\]'"):
        accountant(dp_noise=1)
