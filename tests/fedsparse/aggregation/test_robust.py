"""The rules that survive hostile clients: against their definitions, and what a coordinate that was not sent means."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.aggregation import result_of
from fedsparse.aggregation.krum import Krum, MultiKrum
from fedsparse.aggregation.mean import Mean
from fedsparse.aggregation.safesparse import SafeSparse
from fedsparse.catalogue import AGGREGATORS
from fedsparse.compression import SparseUpdate
from fedsparse.compression.sparse_update import Segment
from fedsparse.plugins import call, named
from fedsparse.vector import Entry, Layout
from tests.fedsparse.sparsity.architectures import QUICK

N, BUFFERS = 400, 3
LAYOUT = Layout((Entry("weights", (N,), 0, N), Entry("buffers", (BUFFERS,), N, BUFFERS)), N, N + BUFFERS)
RULES = tuple(AGGREGATORS)
FILTERS = ("krum", "multi-krum", "safesparse")
ABSENT = float("nan")


def update_of(dense: np.ndarray) -> SparseUpdate:
    """An update in which NaN stands for a coordinate that is not sent."""
    at = np.flatnonzero(~np.isnan(dense[:N]))
    segments = Segment(0, N, at, dense[at].astype(np.float32)), Segment(N, BUFFERS, None, dense[N:].astype(np.float32))
    return SparseUpdate(LAYOUT, 1, segments)


def aggregate(rule: str, updates: np.ndarray, samples: list[int] | None = None, byzantine: float = 0.2) -> np.ndarray:
    make = named(AGGREGATORS, rule)
    aggregator = call(make, N + BUFFERS, torch.ones(N, dtype=torch.bool), byzantine=byzantine)
    for row, weight in zip(updates, samples or [1] * len(updates), strict=True):
        aggregator.add(update_of(row), weight)
    return result_of(aggregator, N + BUFFERS).numpy()


def honest(clients: int = 10, seed: int = 0, density: float = 1.0) -> np.ndarray:
    """Updates that share a direction; with a density each client sends its largest weights."""
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal(N + BUFFERS) + 0.7 * rng.standard_normal((clients, N + BUFFERS))
    for row in updates:
        if density < 1:
            row[np.argsort(-np.abs(row[:N]))[round(density * N) :]] = ABSENT
    return updates


@pytest.mark.parametrize("rule", RULES)
def test_clients_that_all_send_the_same_dense_update_get_it_back(rule: str) -> None:
    update = np.random.default_rng(0).standard_normal(N + BUFFERS)
    np.testing.assert_allclose(aggregate(rule, np.stack([update] * 5)), update, rtol=1e-5)


@QUICK
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_the_median_and_the_trimmed_mean_are_loops_over_coordinates_and_their_senders(clients: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((clients, N + BUFFERS))
    updates[:, :N][rng.random((clients, N)) < 0.5] = ABSENT
    hostile, norms = int(0.2 * clients), np.sqrt(np.nansum(np.square(updates[:, :N]), axis=1))
    given = updates.copy()
    updates[:, :N] *= np.minimum(1, np.sort(norms)[(clients - 1) // 2] / np.maximum(norms, 1e-30))[
        :, None
    ]  # as Kept.votes says
    median, trimmed = (aggregate(rule, given) for rule in ("median", "trimmed-mean"))
    for i in range(N + BUFFERS):
        votes = np.sort(updates[:, i][~np.isnan(updates[:, i])])
        share, cut = len(votes) / clients, min(hostile, max(len(votes) - 1, 0) // 2)
        counts = len(votes) > hostile
        expected = (np.median(votes), votes[cut : len(votes) - cut].mean()) if counts else (0.0, 0.0)
        assert median[i] == pytest.approx(share * expected[0], rel=1e-5, abs=1e-6)
        assert trimmed[i] == pytest.approx(share * expected[1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_clients_that_did_not_send_a_coordinate_do_not_vote_it_to_zero(rule: str) -> None:
    updates = np.full((10, N + BUFFERS), ABSENT)
    updates[:, N:] = 0
    updates[:4, 7], updates[4:, 8] = 5.0, 5.0  # all are of one length
    assert aggregate(rule, updates)[7] == pytest.approx(0.4 * 5.0)  # a median over zeros would be 0


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_a_coordinate_that_only_hostile_clients_may_have_sent_is_left_out(rule: str) -> None:
    updates = honest()
    updates[:, 7] = ABSENT
    updates[:2, 7] = 1.0
    assert aggregate(rule, updates)[7] == 0
    assert aggregate(rule, updates, byzantine=0.0)[7] == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("rule", ["norm-clip", *FILTERS])
def test_a_coordinate_that_no_chosen_client_sent_stays_and_others_are_averaged_as_by_the_mean(rule: str) -> None:
    updates = np.tile(honest(1, density=0.3), (6, 1))
    expected = np.nan_to_num(updates[0])
    np.testing.assert_allclose(aggregate(rule, updates), expected, rtol=1e-5)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "mean"])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("attack", ["sign-flip", "scale", "noise"])
def test_two_hostile_clients_of_ten_move_the_result_less_than_they_move_the_mean(
    rule: str, density: float, attack: str
) -> None:
    updates = honest(density=density)
    clean = np.nanmean(np.where(np.isnan(updates[2:]), 0, updates[2:]), axis=0)
    noise = 8 * np.random.default_rng(1).standard_normal((2, N + BUFFERS))
    updates[:2] = {"sign-flip": -updates[:2], "scale": -8 * updates[:2], "noise": noise + 0 * updates[:2]}[attack]
    if rule == "krum":  # it is one honest client's own update
        rows = np.where(np.isnan(updates), 0, updates)[2:, :N].astype(np.float32)
        assert any(np.allclose(aggregate(rule, updates)[:N], row, rtol=1e-4) for row in rows)
    elif (rule, attack) != ("norm-clip", "sign-flip"):  # a flipped update is not longer than others
        moved = [np.linalg.norm((aggregate(r, updates) - clean)[:N]) for r in (rule, "mean")]
        assert moved[0] < (1.0 if attack == "sign-flip" and rule != "safesparse" else 0.6) * moved[1]


def test_norm_clip_is_the_mean_of_updates_cut_to_the_median_length() -> None:
    updates, samples = honest(5), [1, 2, 3, 4, 5]
    updates *= np.array([[1.0], [2.0], [3.0], [40.0], [50.0]])
    norms = np.linalg.norm(updates[:, :N], axis=1)
    cut = updates * np.minimum(1, np.median(norms) / norms)[:, None]
    np.testing.assert_allclose(
        aggregate("norm-clip", updates, samples)[:N], np.average(cut, axis=0, weights=samples)[:N], rtol=1e-4
    )


def test_krum_chooses_by_distances_over_the_coordinates_that_both_sent() -> None:
    updates = honest(7, density=0.5)
    rule = Krum(N + BUFFERS, torch.ones(N, dtype=torch.bool))
    for row in updates:
        rule.add(update_of(row), 1)
    for i in range(7):
        for j in range(7):
            both = (updates[i, :N] - updates[j, :N])[~np.isnan(updates[i, :N] - updates[j, :N])]
            expected = np.inf if i == j else np.square(both).mean()
            assert rule.distances()[i, j] == pytest.approx(expected, rel=1e-4)


def test_krum_takes_no_client_that_shares_no_coordinate_with_the_others() -> None:
    updates = honest(6, density=0.5)
    sent_by_some = ~np.isnan(updates[1:, :N]).all(axis=0)
    updates[0, :N] = np.where(sent_by_some, ABSENT, 1e-9)
    assert np.argmax(_scores(updates)) == 0
    assert not np.isin(np.float32(1e-9), aggregate("krum", updates))


def _scores(updates: np.ndarray) -> np.ndarray:
    rule = MultiKrum(N + BUFFERS, torch.ones(N, dtype=torch.bool))
    for row in updates:
        rule.add(update_of(row), 1)
    return rule.scores()


def test_safesparse_drops_clients_that_agree_on_coordinates_that_no_one_else_sends() -> None:
    updates = honest(10, density=0.2)
    rare = np.argsort(np.isnan(updates[:, :N]).sum(axis=0))[-80:]
    updates[:2, :N] = ABSENT
    updates[:2, rare] = 3.0
    rule = SafeSparse(N + BUFFERS, torch.ones(N, dtype=torch.bool))
    for row in updates:
        rule.add(update_of(row), 1)
    shared, sizes, _ = rule.compare()
    assert rule.of_like_support(shared, sizes).tolist() == [False] * 2 + [True] * 8
    without = aggregate("safesparse", updates[2:])
    np.testing.assert_allclose(aggregate("safesparse", updates)[:N], without[:N], rtol=1e-5)


@pytest.mark.parametrize("rule", ["norm-clip", "safesparse"])
@pytest.mark.parametrize("size", [50, 1e38])
def test_where_half_of_a_cohort_is_hostile_no_update_counts_much_longer_than_an_honest_one(
    rule: str, size: float
) -> None:
    updates = honest(10)
    updates[:5] *= -size / np.abs(updates[:5]).max()
    longest = np.linalg.norm(updates[5:, :N], axis=1).max()
    assert np.linalg.norm(aggregate(rule, updates)[:N]) < 1.5 * longest


def test_safesparse_drops_flipped_signs_whatever_their_size() -> None:
    for size in (0.3, 1.0, 5.0):
        updates = honest(10)
        updates[:2] *= -size
        np.testing.assert_allclose(
            aggregate("safesparse", updates)[:N], aggregate("safesparse", updates[2:])[:N], rtol=1e-5
        )


def test_safesparse_keeps_everyone_where_no_majority_agrees() -> None:
    updates = np.random.default_rng(0).standard_normal((10, N + BUFFERS))
    updates[0] *= 5
    norms = np.linalg.norm(updates[:, :N], axis=1)
    cut = updates[:, :N] * np.minimum(1, 1.5 * np.sort(norms)[4] / norms)[:, None]
    np.testing.assert_allclose(aggregate("safesparse", updates)[:N], cut.mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "mean"])
def test_buffers_do_not_follow_a_hostile_client(rule: str) -> None:
    updates = honest()
    updates[0, N:] = 1e6
    assert np.abs(aggregate(rule, updates)[N:]).max() < 10 or rule == "krum"


def test_without_hostile_clients_trimmed_mean_is_the_mean() -> None:
    updates = honest(6)
    updates[:, 3] = ABSENT
    updates[:, :N] /= np.sqrt(np.nansum(np.square(updates[:, :N]), axis=1, keepdims=True))
    mean = Mean(N + BUFFERS, torch.ones(N, dtype=torch.bool))
    for row in updates:
        mean.add(update_of(row), 1)
    trimmed = aggregate("trimmed-mean", updates, byzantine=0.0)
    np.testing.assert_allclose(trimmed, mean.result().numpy(), rtol=1e-5, atol=1e-6)
