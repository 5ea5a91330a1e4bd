"""The Gaussian mechanism: how far one client moves the sum, how the noise is distributed, what an attacker learns."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from fedsparse.catalogue import COMPRESSORS
from fedsparse.compression import ClientState, SparseUpdate, UpdateCodec
from fedsparse.compression.sparse_update import Segment
from fedsparse.config.presets import PRESETS, resolve
from fedsparse.privacy.accountant import spent
from fedsparse.privacy.noise import Bits, repeatable_bits, secret_bits
from fedsparse.privacy.private_sum import PrivateSum
from tests.fedsparse.compression.common import draw_vector, layout_of, layout_of_shapes

LAYOUT = layout_of_shapes((20, 10), (20,), (5, 20))
N, CLIP = LAYOUT.size, 0.7


def sum_of(updates: list[SparseUpdate], deviation: float = 0.0, bits: Bits = secret_bits, **more: object) -> PrivateSum:
    size = more.pop("size", N)
    support = more.pop("support", torch.ones(size, dtype=torch.bool))
    total = PrivateSum(size, support, CLIP, deviation, more.pop("expected", 1), bits)
    for update in updates:
        total.add(update, samples=3)
    return total


def dense(values: np.ndarray) -> SparseUpdate:
    values = np.asarray(values, np.float32)
    return SparseUpdate(layout_of(values.size), 1, (Segment(0, values.size, None, values),))


def after_rounds(name: str, rounds: int, scale: float) -> SparseUpdate:
    """A client's decoded update after some rounds, some of them lost, with whatever it has kept back meanwhile."""
    codec, state = UpdateCodec(LAYOUT, density=0.1, **resolve(name)), ClientState()
    for round in range(1, rounds + 1):
        codec.settle(state, round - 1 - round % 2)
        update = scale * draw_vector("heavy-tailed", N, round)
        payload, _ = codec.encode(update.astype(np.float32), state, round=round, seed=round)
    return codec.decode(payload)


@pytest.mark.parametrize("name", [*COMPRESSORS, *PRESETS])
@given(rounds=st.integers(1, 5), scale=st.sampled_from([1e-20, 0.01, 1.0, 1e30]))
@settings(max_examples=4, deadline=None)
def test_one_client_moves_the_sum_by_the_clip_at_most_whatever_it_has_kept_back(
    name: str, rounds: int, scale: float
) -> None:
    others = [dense(draw_vector("normal", N, seed)) for seed in range(3)]
    without, with_client = (sum_of(updates).total for updates in (others, [*others, after_rounds(name, rounds, scale)]))
    assert torch.linalg.vector_norm(with_client - without) <= CLIP * (1 + 1e-9)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_one_hostile_payload_moves_the_sum_by_the_clip_at_most(values: list[float]) -> None:
    others = [dense(draw_vector("normal", N, seed)) for seed in range(3)]
    moved = sum_of([*others, dense(np.resize(values, N))]).total - sum_of(others).total
    assert torch.linalg.vector_norm(moved) <= CLIP * (1 + 1e-9)


def test_short_updates_count_whole_long_ones_are_scaled_and_samples_change_nothing() -> None:
    short, long = np.full(N, 0.01), np.full(N, 3.0)
    total = sum_of([dense(short), dense(long)], expected=4)
    assert (total.count, total.clipped) == (2, 1)
    np.testing.assert_allclose(total.result(), (short + CLIP / np.sqrt(N)) / 4, rtol=1e-6)


@pytest.mark.parametrize("bits", [repeatable_bits(5), secret_bits], ids=["repeatable", "secret"])
def test_the_noise_is_normal_of_the_given_deviation_on_the_support_and_nowhere_else(bits: Bits) -> None:
    size = 200_000
    support = torch.arange(size) % 3 != 0
    drawn = sum_of([], deviation=2.5, bits=bits, size=size, support=support, expected=5).result()
    assert not drawn[~support].any()
    noise = drawn[support].numpy().astype(np.float64)
    assert kstest(noise, "norm", args=(0, 0.5)).pvalue > 1e-4
    assert noise.std() == pytest.approx(0.5, rel=5 / np.sqrt(2 * noise.size))
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 5 / np.sqrt(noise.size)


def test_values_outside_of_the_support_are_dropped() -> None:
    support = torch.arange(N) < 10
    total = sum_of([dense(np.full(N, 0.01))], support=support).result()
    assert (total != 0).tolist() == support.tolist()


def test_a_seed_gives_its_noise_again_and_the_system_never() -> None:
    first, again, other = (sum_of([], 1.0, repeatable_bits(seed)).result() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(sum_of([], 1.0).result(), sum_of([], 1.0).result())


def membership(noise: float, rate: float, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """What an attacker measures of the released sum without a client, and with one that sends a canary.

    The attacker knows all other updates, and the canary, which it has made as visible as it can.
    """
    rng, bits = np.random.default_rng(1), repeatable_bits(2)
    other, canary = dense(np.array([0.1, 0.2, 0.3])), dense(np.array([1e9, 0.0, 0.0]))
    measured = np.empty((2, trials))
    for takes_part in (0, 1):
        for trial in range(trials):
            updates = [other, canary] if takes_part and rng.random() < rate else [other]
            measured[takes_part, trial] = sum_of(updates, noise * CLIP, bits, size=3).result()[0]
    return measured[0], measured[1]


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_an_attacker_who_knows_all_else_learns_no_more_of_a_client_than_epsilon_and_without_noise_all(
    rate: float,
) -> None:
    trials, delta = 3000, 0.01
    margin = np.sqrt(np.log(2 / 1e-6) / (2 * trials))  # Dvoretzky, Kiefer and Wolfowitz, of both shares

    def advantage(noise: float, epsilon: float) -> float:
        """By how much the best threshold breaks the bound of differential privacy."""
        without, with_client = membership(noise, rate, trials)
        thresholds = np.unique(np.concatenate([without, with_client]))
        false = 1 - np.searchsorted(np.sort(without), thresholds, "right") / trials
        true = 1 - np.searchsorted(np.sort(with_client), thresholds, "right") / trials
        factor = np.exp(epsilon)
        return max((true - factor * false).max(), ((1 - false) - factor * (1 - true)).max()) - delta

    epsilon = spent(1.0, rate, 1, delta)
    assert advantage(1.0, epsilon) <= margin * (1 + np.exp(epsilon))
    assert advantage(0.0, epsilon) >= rate - delta - 0.05
    if rate == 1:  # the bound is tight enough to tell noise that is far too small
        assert advantage(0.25, epsilon) > margin * (1 + np.exp(epsilon)) / 2
