import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsparse.sparsity import Topology
from fedsparse.sparsity.densities import erk
from fedsparse.sparsity.readjust import (
    Report,
    ReportSum,
    cosine_fraction,
    drop_and_grow,
    exchange_counts,
    readjust,
    report_growth,
    select_by_votes,
)
from tests.fedsparse.sparsity.architectures import QUICK, architectures, generator, layers_of, small_cnn, votes_of

SPARSITIES = st.floats(0.01, 0.99)
FEW_VALUES = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=30)


def make(model, sparsity: float, seed: int = 0) -> Topology:
    layers, parameters = layers_of(model, [])
    return Topology.random(layers, parameters, erk(layers, sparsity), generator(seed))


def naive(mask: list[bool], weights: list[float], scores: list[float], r: int) -> list[bool]:
    """The algorithm as the paper words it, one weight at a time."""
    new = list(mask)
    for _ in range(r):
        victim = None
        for i in range(len(mask)):
            if new[i] and (victim is None or abs(weights[i]) < abs(weights[victim])):
                victim = i
        new[victim] = False
    survivors = list(new)
    for _ in range(r):
        best = None
        for i in range(len(mask)):
            if not new[i] and not survivors[i] and (best is None or scores[i] > scores[best]):
                best = i
        new[best] = True
    return new


@QUICK
@given(FEW_VALUES, st.integers(0, 30))
def test_drop_and_grow_equals_a_naive_loop_over_weights_with_ties_by_index(rows, r):
    mask, weights, scores = (list(column) for column in zip(*rows, strict=True))
    r = min(r, sum(mask), len(mask) - sum(mask))
    new = drop_and_grow(torch.tensor(mask), torch.tensor(weights).float(), torch.tensor(scores).float(), r)
    assert new.tolist() == naive(mask, weights, scores, r)


@QUICK
@given(architectures(), SPARSITIES, st.floats(0, 1), st.integers(0, 9))
def test_readjustment_leaves_the_count_of_every_layer_unchanged(model, sparsity, fraction, seed):
    topology = make(model, sparsity, seed)
    weights = topology.apply_(torch.randn(topology.mask.numel(), generator=generator(seed)))
    new = readjust(topology, weights, torch.rand(weights.shape, generator=generator(seed + 1)), fraction)
    assert new.counts == topology.counts
    assert bool(new.mask[~topology.prunable].all())


@QUICK
@given(architectures(), SPARSITIES, st.floats(0, 1))
def test_grown_weights_are_never_survivors_and_every_drop_is_matched(model, sparsity, fraction):
    topology = make(model, sparsity)
    weights = torch.randn(topology.mask.numel())
    inactive_only = torch.rand(weights.shape).masked_fill(topology.mask, -1)
    new = readjust(topology, weights, inactive_only, fraction)
    for layer, r in zip(topology.layers, exchange_counts(topology, fraction), strict=True):
        old_mask, new_mask = topology.mask[layer.slice], new.mask[layer.slice]
        assert int((old_mask & ~new_mask).sum()) == int((new_mask & ~old_mask).sum()) == r
        assert r <= min(int(old_mask.sum()), int((~old_mask).sum()))


def test_a_weight_just_dropped_may_grow_again():
    mask, weights = torch.tensor([True, True, False, False]), torch.tensor([0.1, 2.0, 0, 0])
    assert drop_and_grow(mask, weights, torch.tensor([9.0, 0, 1, 2]), 1).tolist() == [True, True, False, False]
    assert drop_and_grow(mask, weights, torch.tensor([0.0, 9, 1, 2]), 1).tolist() == [False, True, False, True]


@QUICK
@given(architectures(), SPARSITIES)
def test_ratio_zero_leaves_the_mask_identical(model, sparsity):
    topology = make(model, sparsity)
    everywhere = torch.rand(topology.mask.numel())
    assert readjust(topology, everywhere, everywhere, cosine_fraction(3, 10, 0.0)) is topology


def test_the_fraction_decays_by_a_cosine_and_is_zero_from_the_end_on():
    assert cosine_fraction(0, 100, 0.3) == 0.3
    assert cosine_fraction(50, 100, 0.3) == pytest.approx(0.15)
    assert cosine_fraction(25, 100, 0.3) == pytest.approx(0.15 * (1 + math.cos(math.pi / 4)))
    assert cosine_fraction(100, 100, 0.3) == cosine_fraction(101, 100, 0.3) == cosine_fraction(1, 0, 0.3) == 0.0


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_masks_all_one_and_all_zero_have_nothing_to_exchange(sparsity):
    topology = make(small_cnn(), sparsity)
    everywhere = torch.rand(topology.mask.numel())
    assert readjust(topology, everywhere, everywhere, 0.5) is topology


def test_a_mask_of_one_weight_moves_it_to_the_best_place():
    mask = torch.zeros(10, dtype=torch.bool)
    mask[3] = True
    moved = drop_and_grow(mask, torch.ones(10), torch.tensor([0.0, 0, 0, 0, 0, 0, 5, 5, 0, 0]), 1)
    assert moved.nonzero().tolist() == [[6]]


def gradients(topology: Topology, clients: int) -> list[Tensor]:
    return [torch.randn(topology.mask.numel(), generator=generator(seed)) for seed in range(clients)]


def summed(topology: Topology, reports: list[Report]) -> ReportSum:
    total = ReportSum(topology.mask.numel())
    for report in reports:
        total.add(report)
    return total


@QUICK
@given(architectures(), SPARSITIES)
def test_one_clients_sparse_report_decides_the_same_as_its_dense_gradient(model, sparsity):
    topology = make(model, sparsity)
    weights = torch.randn(topology.mask.numel(), generator=generator(7))
    gradient = gradients(topology, 1)[0].round(decimals=1)  # with ties
    sparse = summed(topology, [report_growth(topology, weights, gradient, 0.3)]).scores
    assert torch.equal(
        readjust(topology, weights, sparse, 0.3).mask, readjust(topology, weights, gradient.abs(), 0.3).mask
    )


def test_the_server_regrows_a_weight_just_dropped_when_its_gradient_is_among_the_largest():
    layers, _ = layers_of(torch.nn.Linear(5, 1, bias=False), [])
    topology = Topology(layers, torch.tensor([True, True, False, False, False]))
    weights, gradient = torch.tensor([0.1, 2.0, 0, 0, 0]), torch.tensor([9.0, 0, 1, 5, 2])
    report = report_growth(topology, weights, gradient, 0.5)
    assert report.indices.tolist() == [0, 3]
    assert readjust(topology, weights, summed(topology, [report]).scores, 0.5) is topology


def test_a_report_names_as_many_inactive_weights_as_are_exchanged_and_few_that_are_about_to_be_dropped():
    topology = make(nn.Linear(100, 100), 0.9)
    weights, r = torch.rand(topology.mask.numel()), exchange_counts(topology, 0.3)[0]
    report = report_growth(topology, weights, gradients(topology, 1)[0], 0.3)
    active = report.indices[topology.mask[report.indices]]
    assert r == 300
    assert report.indices.numel() - active.numel() == r
    assert 0 < active.numel() < 0.1 * r
    assert weights[active].max() <= weights[topology.mask].sort().values[r + 100]  # the mask also has a hundred biases
    assert bool((report.indices.diff() > 0).all())


@QUICK
@given(architectures(), SPARSITIES)
def test_a_readjustment_with_two_of_ten_clients_lost_is_valid_and_exact(model, sparsity):
    topology = make(model, sparsity)
    weights = torch.randn(topology.mask.numel())
    reports = [report_growth(topology, weights, gradient, 0.5) for gradient in gradients(topology, 10)]
    new = readjust(topology, weights, summed(topology, reports[:8]).scores, 0.5)
    assert new.counts == topology.counts
    assert readjust(topology, weights, summed(topology, []).scores, 0.5) is topology


def test_reports_are_averaged_over_clients_by_weight_and_scored_by_the_magnitude_of_the_average():
    total = ReportSum(5)
    total.add(Report(torch.tensor([1, 3]), torch.tensor([1.0, 2.0])), weight=2)
    total.add(Report(torch.tensor([3, 4]), torch.tensor([-5.0, -1.0])), weight=6)
    assert total.mean.tolist() == [0, 0.25, 0, -3.25, -0.75]
    assert total.scores.tolist() == [-math.inf, 0.25, -math.inf, 3.25, 0.75]


@pytest.mark.parametrize(
    ("indices", "values"),
    [
        ([1, 1], [1.0, 1.0]),
        ([2, 1], [1.0, 1.0]),
        ([-1], [1.0]),
        ([5], [1.0]),
        ([1], [math.nan]),
        ([1], []),
    ],
)
def test_a_malformed_report_is_refused(indices, values):
    with pytest.raises(ValueError, match="report"):
        ReportSum(5).add(Report(torch.tensor(indices), torch.tensor(values)))


def voted(topology: Topology, clients: list[tuple[Tensor, Tensor, int]], ranking: str = "sum") -> Topology:
    return select_by_votes(topology, *votes_of(clients), ranking)


@QUICK
@given(architectures(), SPARSITIES, st.integers(1, 5))
def test_selection_by_votes_keeps_exact_counts_of_weights_that_a_client_holds(model, sparsity, clients):
    topology = make(model, sparsity)
    replies = []
    for seed in range(clients):
        noise = torch.randn(topology.mask.numel(), generator=generator(seed))
        own = readjust(topology, noise, noise.abs().flip(0), 0.5)
        replies.append((own.apply_(noise.clone()), own.mask, seed + 1))
    new = voted(topology, replies)
    held = torch.stack([mask for _, mask, _ in replies]).any(0)
    assert new.counts == topology.counts
    assert bool((held | topology.mask)[new.mask].all())


def test_votes_prefer_a_weight_of_many_clients_to_a_larger_weight_of_one_client():
    layers, parameters = layers_of(torch.nn.Linear(3, 1, bias=False), [])
    topology = Topology(layers, torch.tensor([True, False, False]))
    many, single = torch.tensor([False, True, False]), torch.tensor([False, False, True])
    weights = torch.tensor([0.0, 1.0, 2.0])
    new = voted(topology, [(weights, many, 10), (weights, many, 10), (weights, many, 10), (weights, single, 10)])
    assert parameters == 3
    assert new.mask.tolist() == [False, True, False]


def test_ranked_by_the_mean_over_holders_a_single_clients_larger_weight_wins_as_in_the_authors_code():
    layers, _ = layers_of(torch.nn.Linear(3, 1, bias=False), [])
    topology = Topology(layers, torch.tensor([True, False, False]))
    many, single = torch.tensor([False, True, False]), torch.tensor([False, False, True])
    weights = torch.tensor([0.0, 1.0, 2.0])
    clients = [(weights, many, 10), (weights, many, 10), (weights, many, 10), (weights, single, 10)]
    assert voted(topology, clients, "mean").mask.tolist() == [False, False, True]


@pytest.mark.parametrize("ranking", ["sum", "mean"])
def test_the_elected_weights_are_those_that_a_count_by_hand_ranks_first(ranking):
    topology, replies = make(small_cnn(), 0.6), []
    for seed in range(4):
        noise = torch.randn(topology.mask.numel(), generator=generator(seed))
        own = readjust(topology, noise, noise.abs().flip(0), 0.5)
        replies.append((own.apply_(noise.clone()), own.mask, seed + 1))
    scores = []
    for i in range(topology.mask.numel()):
        total = sum(samples * float(weights[i]) for weights, mask, samples in replies if mask[i])
        held = sum(samples for _, mask, samples in replies if mask[i])
        scores.append(abs(total / (held or 1) if ranking == "mean" else total) if held else -1.0)
    new = voted(topology, replies, ranking)
    for layer, count in zip(topology.layers, topology.counts, strict=True):
        first = sorted(range(layer.start, layer.start + layer.size), key=lambda i: -scores[i])[:count]
        assert sorted(first) == (layer.start + new.mask[layer.slice].nonzero().squeeze(1)).tolist()


def test_votes_of_unequal_samples_are_weighted():
    layers, _ = layers_of(torch.nn.Linear(2, 1, bias=False), [])
    topology = Topology(layers, torch.tensor([True, False]))
    a, b = torch.tensor([True, False]), torch.tensor([False, True])
    assert voted(topology, [(torch.ones(2), a, 1), (torch.ones(2), b, 2)]).mask.tolist() == [False, True]
    assert voted(topology, [(torch.ones(2), a, 2), (torch.ones(2), b, 1)]).mask.tolist() == [True, False]


def test_weights_that_no_client_holds_are_not_elected_even_when_all_votes_are_zero():
    layers, _ = layers_of(torch.nn.Linear(4, 1, bias=False), [])
    topology = Topology(layers, torch.tensor([False, False, True, True]))
    own = torch.tensor([False, True, False, True])
    assert voted(topology, [(torch.zeros(4), own, 1)]).mask.tolist() == [False, True, True, False]
