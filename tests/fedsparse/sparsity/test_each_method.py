"""What each method does by its paper."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsparse.sparsity import Topology
from fedsparse.sparsity.densities import budget, erk
from fedsparse.sparsity.feddst import FedDST
from fedsparse.sparsity.magnitude import Magnitude, gradual_sparsity
from fedsparse.sparsity.method import RoundResult
from fedsparse.sparsity.prunefl import PruneFL
from fedsparse.sparsity.readjust import Report, ReportSum, exchange_counts
from fedsparse.sparsity.rigl import RigL
from fedsparse.sparsity.set import Set
from fedsparse.sparsity.small_dense import width_for
from fedsparse.sparsity.sparsyfed import SparsyFed, from_weights, gradient_of_psi, to_weights
from fedsparse.sparsity.ssfl import SSFL, saliency
from tests.fedsparse.sparsity.architectures import QUICK, architectures, generator, layers_of, small_cnn, votes_of
from tests.fedsparse.sparsity.test_methods import play_round, start


def test_grown_weights_survive_when_trained_and_die_at_once_when_uploaded_as_zeros():
    method = FedDST(0.5, ratio=0.3, interval=1, end=100)
    topology = start(method, small_cnn())
    weights = topology.apply_(torch.randn(topology.mask.numel(), generator=generator(1)))
    own = method.readjust_locally(topology, weights, torch.randn(weights.shape, generator=generator(2)), 1)
    grown = own.mask & ~topology.mask
    assert int(grown.sum()) > 50

    def survivors(local):
        models = votes_of([(local, own.mask, 5), (weights, topology.mask, 5)])
        new = method.decide(topology, RoundResult(1, weights, generator(), votes=models))
        return int((new.mask & grown).sum())

    assert survivors(own.apply_(weights.clone())) == 0  # readjusted last
    trained = own.apply_(weights + grown * 3.0)  # readjusted in the middle
    assert survivors(trained) > 50


def test_rigl_without_a_single_report_changes_nothing():
    method = RigL(0.5, interval=1, end=100)
    topology = start(method, small_cnn())
    weights = torch.randn(topology.mask.numel())
    assert method.decide(topology, RoundResult(1, weights, generator())) is topology
    assert method.decide(topology, RoundResult(1, weights, generator(), ReportSum(weights.numel()))) is topology


def test_growth_by_momentum_remembers_earlier_rounds():
    layers, _ = layers_of(nn.Linear(6, 1, bias=False), [])
    method = RigL(0.5, ratio=0.6, interval=1, end=1000, growth="momentum", momentum=0.9)
    topology = Topology(layers, torch.tensor([True, True, True, False, False, False]))

    def result(index: int, value: float) -> RoundResult:
        reports = ReportSum(6)
        reports.add(Report(torch.tensor([index]), torch.tensor([value])))
        return RoundResult(1, torch.tensor([1.0, 2, 3, 0, 0, 0]), generator(), reports)

    method.decide(topology, result(3, 10.0))
    later = method.decide(topology, result(4, 1.0))  # alone it would grow 4
    assert later.mask.tolist() == [False, False, True, True, True, False]
    assert method.state_dict()["importance"].tolist() == pytest.approx([0, 0, 0, 0.9, 0.1, 0])


def test_growth_by_momentum_prefers_a_steady_gradient_to_one_that_oscillates_whatever_the_samples():
    layers, _ = layers_of(nn.Linear(6, 1, bias=False), [])
    method = RigL(0.5, ratio=0.34, interval=1, end=1000, growth="momentum")
    topology = Topology(layers, torch.tensor([True, True, True, False, False, False]))
    weights, average = torch.tensor([1.0, 2, 3, 0, 0, 0]), torch.zeros(6)
    for round in range(1, 9):
        gradient = torch.tensor([0, 0, 0, (-1.0) ** round, -0.6, 0.1])
        reports = ReportSum(6)
        for samples in (1, 10 ** (round % 3)):
            reports.add(Report(torch.tensor([3, 4, 5]), gradient[3:]), samples)
        new = method.decide(topology, RoundResult(round, weights, generator(), reports))
        average = 0.9 * average + 0.1 * gradient  # sparse momentum's m, with which its section 3.2 ranks: |m|
    assert new.mask.tolist() == [False, True, True, False, True, False]
    assert method.state_dict()["importance"].tolist() == pytest.approx(average.tolist())


def test_growth_by_gradient_prefers_weights_on_which_clients_agree():
    layers, _ = layers_of(nn.Linear(6, 1, bias=False), [])
    topology = Topology(layers, torch.tensor([True, True, True, False, False, False]))
    reports = ReportSum(6)
    for pull in (5.0, -5.0):
        reports.add(Report(torch.tensor([3, 4]), torch.tensor([pull, 1.0])))
    result = RoundResult(1, torch.tensor([1.0, 2, 3, 0, 0, 0]), generator(), reports)
    new = RigL(0.5, ratio=0.34, interval=1, end=1000).decide(topology, result)
    assert new.mask.tolist() == [False, True, True, False, True, False]


def test_prunefl_ranks_all_layers_by_squared_gradient_and_keeps_large_weights():
    layers, parameters = layers_of(nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)), [])
    topology = Topology(layers, torch.tensor([True, True, False, True, True, False]))
    reports = ReportSum(parameters)
    gradient = torch.tensor([0.0, 1.0, 2.0, 0.5, 0.1, 3.0])
    method = PruneFL(1 / 3, ratio=0.5, interval=1, end=10**9)
    weights = torch.tensor([5.0, 0.1, 0, 4.0, 0.2, 0])
    reports.add(method.report(topology, weights, gradient, 1))
    result = RoundResult(1, weights, generator(), reports)
    assert method.decide(topology, result).mask.tolist() == [True, False, True, True, False, True]


def test_ssfl_keeps_the_most_salient_weights_over_all_layers():
    layers, parameters = layers_of(small_cnn())
    weights, gradient = torch.randn(2, parameters, generator=generator())
    scores = saliency(weights, gradient)
    topology = SSFL(0.5).initial(layers, parameters, generator(), scores)
    assert sum(topology.counts) == round(0.5 * sum(layer.size for layer in layers))
    kept = scores[topology.mask & topology.prunable]
    assert kept.min() >= scores[~topology.mask].max()
    assert bool(topology.mask[~topology.prunable].all())
    with pytest.raises(ValueError, match="saliency"):
        SSFL(0.5).initial(layers, parameters, generator())


def test_powerpropagation_is_inverted_and_its_gradient_is_the_chain_rules():
    psi = torch.randn(50, dtype=torch.float64, generator=generator(), requires_grad=True)
    weights = to_weights(psi, 1.25)
    torch.testing.assert_close(from_weights(weights.detach(), 1.25), psi.detach())
    (weights**3).sum().backward()
    torch.testing.assert_close(gradient_of_psi(3 * weights.detach() ** 2, psi.detach(), 1.25), psi.grad)
    assert torch.equal(to_weights(psi, 1.0), psi)
    assert gradient_of_psi(torch.ones(1), torch.zeros(1), 1.25).item() == 0.0


def test_sparsyfed_uploads_the_largest_weights_of_each_layer_and_a_weight_that_no_client_keeps_never_returns():
    method = SparsyFed(0.9)
    topology = start(method, small_cnn())
    weights = torch.randn(topology.mask.numel(), generator=generator())
    keep = budget(topology.layers, 0.9)
    weights[topology.layers[1].slice] *= 1e-6  # a layer of small weights, which must not become empty
    for round in range(1, 5):
        own = method.upload_topology(topology, weights)
        assert own.counts == erk(topology.layers, 0.9)
        for layer in topology.layers:
            sizes, mask = weights[layer.slice].abs(), own.mask[layer.slice]
            assert bool(mask.all()) or sizes[mask].min() >= sizes[~mask].max()
        new, weights = play_round(method, topology, weights, round)
        assert not bool((new.mask & ~topology.mask).any())
        assert keep <= sum(new.counts) <= 3 * keep
        topology = new


def test_the_gradual_schedule_is_zhu_and_guptas():
    assert [gradual_sparsity(t, 10, 0.8) for t in (0, 5, 10, 20)] == pytest.approx([0.0, 0.7, 0.8, 0.8])


def test_gradual_pruning_drops_the_smallest_weights_and_ends_at_the_counts_of_erk():
    method = Magnitude(0.8, interval=3, end=10)
    topology = start(method, small_cnn())
    rounds = [round for round in range(1, 15) if method.is_readjustment(round)]
    assert rounds == [3, 6, 9, 10]
    weights = torch.randn(topology.mask.numel(), generator=generator())
    for round in rounds:
        new = method.decide(topology, RoundResult(round, weights, generator()))
        assert not bool((new.mask & ~topology.mask).any())
        topology = new
        topology.apply_(weights)
    assert topology.counts == erk(topology.layers, 0.8)


def test_small_dense_finds_the_widest_network_within_the_weights():
    def parameters(width: float) -> int:
        hidden = max(1, round(100 * width))
        return 784 * hidden + hidden * 10

    width = width_for(parameters, round(0.2 * parameters(1.0)))
    assert parameters(width) == 794 * 20
    assert width_for(parameters, parameters(1.0)) == 1.0
    with pytest.raises(ValueError, match="narrowest network has 794 parameters"):
        width_for(parameters, 10)


@QUICK
@given(model=architectures(), sparsity=st.floats(0.3, 0.9), skew=st.floats(-2, 2), ratio=st.floats(0.1, 0.6))
def test_set_drops_the_smallest_positive_and_the_largest_negative_weights_by_the_same_share(
    model, sparsity, skew, ratio
):
    method = Set(sparsity, ratio=ratio, end=2 * 10**9)  # so that the share is still the ratio in round 1
    topology = start(method, model)
    weights = topology.apply_(torch.randn(topology.mask.numel(), generator=generator(3)) + skew)
    new = method.decide(topology, RoundResult(1, weights, generator(5)))
    for layer, r in zip(topology.layers, exchange_counts(topology, method.fraction(1)), strict=True):
        old, kept, values = topology.mask[layer.slice], new.mask[layer.slice], weights[layer.slice]
        gone = {sign: sorted((sign * values[old & ~kept & (sign * values > 0)]).tolist()) for sign in (1, -1)}
        share = r / max(int(old.sum()), 1)
        for sign, dropped in gone.items():
            signed = sorted((sign * values[old & (sign * values > 0)]).tolist())
            allowed = math.ceil(share * len(signed) + 1)  # rounding gives a sign at most one weight more than its share
            assert all(value in signed[:allowed] for value in dropped)


def test_set_drops_as_its_algorithm_says_where_a_magnitude_drop_would_take_one_sign_alone():
    layers, _ = layers_of(nn.Linear(12, 1, bias=False), [])
    topology = Topology(layers, torch.tensor([True] * 8 + [False] * 4))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4, -1.0, -2.0, -3.0, -4.0, 0, 0, 0, 0])
    for seed in range(20):
        new = Set(0.5, ratio=0.5, end=10**9).decide(topology, RoundResult(1, weights, generator(seed)))
        assert new.counts == topology.counts
        assert new.mask[[2, 3, 6, 7]].all()  # a half of each sign: 0.1, 0.2, -1 and -2 are dropped, or grow again
