"""What holds for every method, over the rounds of a small federation of made-up clients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.config.topology_checks import FIXED
from fedsparse.plugins import named
from fedsparse.sparsity import Topology, TopologyMethod
from fedsparse.sparsity.densities import budget
from fedsparse.sparsity.method import RoundResult
from fedsparse.sparsity.readjust import Report, ReportSum
from fedsparse.sparsity.rigl import RigL
from fedsparse.sparsity.static import Static
from tests.fedsparse.sparsity.architectures import QUICK, architectures, generator, layers_of, small_cnn, votes_of

FIXED_COUNTS = ("static", "set", "rigl", "feddst", "ssfl")
DYNAMIC = ("set", "rigl", "feddst", "prunefl")


def start(method: TopologyMethod, model: nn.Module, seed: int = 0) -> Topology:
    layers, parameters = layers_of(model, [])
    scores = torch.rand(parameters, generator=generator(seed)) if method.needs_saliency else None
    return method.initial(layers, parameters, generator(seed), scores)


def play_round(method: TopologyMethod, topology: Topology, weights, round: int, clients: int = 3):
    """Play a round with clients whose training is noise; returns the next topology and weights."""
    models, reports = [], ReportSum(weights.numel())
    for client in range(clients):
        noise = torch.randn(3, weights.numel(), generator=generator(100 * round + client))
        own = topology
        if method.is_readjustment(round):
            own = method.readjust_locally(topology, weights, noise[0], round)
        local = own.apply_(weights + noise[1])
        own = method.upload_topology(own, local)
        models.append((local, own.mask, client + 1))
        if method.reports and method.is_readjustment(round):
            reports.add(method.report(topology, local, noise[2], round))
    total, held = votes_of(models)
    aggregated = torch.where(held > 0, total / held, weights.double()).float()
    new, weights = topology, topology.apply_(aggregated.clone())
    if method.is_readjustment(round):
        result = RoundResult(round, weights, generator(round), reports, votes_of(models))
        new = method.decide(topology, result)
    return new, new.apply_(aggregated)


@pytest.mark.parametrize("name", TOPOLOGIES)
@QUICK
@given(model=architectures(), sparsity=st.floats(0.01, 0.99))
def test_the_invariants_hold_in_every_round(name, model, sparsity):
    method = named(TOPOLOGIES, name)(sparsity, interval=2, end=6)
    topology = start(method, model)
    first, weights = topology, torch.zeros(topology.mask.numel())
    keep = budget(topology.layers, sparsity)
    for round in range(1, 8):
        topology, weights = play_round(method, topology, weights, round)
        assert bool(topology.mask[~topology.prunable].all())
        assert not bool(weights[~topology.mask].any())
        if name in FIXED_COUNTS:
            assert topology.counts == first.counts
        if name in (*FIXED_COUNTS, "prunefl") or (name == "magnitude" and round >= 6):
            assert sum(topology.counts) == keep
        if name in ("dense", "small-dense"):
            assert bool(topology.mask.all())


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_two_runs_with_one_seed_have_identical_masks(name):
    runs = []
    for _ in range(2):
        method = named(TOPOLOGIES, name)(0.6, interval=1, end=5)
        topology = start(method, small_cnn())
        weights, hashes = torch.zeros(topology.mask.numel()), []
        for round in range(1, 6):
            topology, weights = play_round(method, topology, weights, round)
            hashes.append((topology.hash, topology.version))
        runs.append(hashes)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_decision_depends_only_on_its_arguments_and_changes_none_of_them(name):
    method = named(TOPOLOGIES, name)(0.6, interval=1, end=5)
    topology = start(method, small_cnn())
    first, weights = topology.mask.clone(), torch.randn(topology.mask.numel(), generator=generator())
    reports = ReportSum(weights.numel())
    reports.add(Report(torch.arange(weights.numel()), torch.randn(weights.shape, generator=generator(1))))
    models = votes_of([(weights, topology.mask, 3), (-weights, topology.mask, 2)])
    vectors = (weights, reports.total, *models)
    before = [vector.clone() for vector in vectors]
    decided = [method.decide(topology, RoundResult(1, weights, generator(), reports, models)) for _ in range(2)]
    assert decided[0].hash == decided[1].hash
    assert torch.equal(topology.mask, first)
    assert all(map(torch.equal, vectors, before))


@pytest.mark.parametrize("growth", ["gradient", "random", "momentum"])
def test_a_method_with_a_restored_state_decides_as_the_original_does(growth):
    first, second = (RigL(0.6, interval=1, end=9, growth=growth) for _ in range(2))
    topology = start(first, small_cnn())
    weights = torch.zeros(topology.mask.numel())
    second.load_state_dict(first.state_dict())
    for round in (1, 2):
        topology, weights = play_round(first, topology, weights, round)
    second.load_state_dict(first.state_dict())
    decided = [play_round(method, topology, weights, 3)[0].hash for method in (first, second)]
    assert decided[0] == decided[1]


def test_the_settings_know_which_topologies_never_change():
    assert set(FIXED) == {name for name in TOPOLOGIES if issubclass(named(TOPOLOGIES, name), Static)}


@pytest.mark.parametrize("name", DYNAMIC)
def test_ratio_zero_leaves_the_topology_as_it_is(name):
    method = named(TOPOLOGIES, name)(0.6, ratio=0.0, interval=1, end=5)
    topology = start(method, small_cnn())
    if name == "feddst":  # clients keep the server's mask, so that the server selects it again
        noise = torch.rand(topology.mask.numel())
        assert method.readjust_locally(topology, noise, noise, 1) is topology
    assert play_round(method, topology, torch.zeros(topology.mask.numel()), 1)[0] is topology


@pytest.mark.parametrize("name", DYNAMIC)
def test_a_readjustment_changes_the_topology_by_about_the_ratio(name):
    method = named(TOPOLOGIES, name)(0.6, ratio=0.3, interval=1, end=1000)
    topology = start(method, small_cnn())
    new, _ = play_round(method, topology, torch.zeros(topology.mask.numel()), 1)
    share = int((new.mask & ~topology.mask).sum()) / sum(topology.counts)
    assert 0.05 < share <= 0.31
    assert new.version == 1


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_sparsity_zero_keeps_every_weight_so_that_aggregation_is_fedavg(name):
    method = named(TOPOLOGIES, name)(0.0, interval=1, end=3)
    topology = start(method, small_cnn())
    weights = torch.zeros(topology.mask.numel())
    for round in range(1, 5):
        topology, weights = play_round(method, topology, weights, round)
        assert bool(topology.mask.all())


def test_readjustment_is_counted_in_rounds_so_that_one_local_epoch_still_readjusts():
    method = named(TOPOLOGIES, "rigl")(0.5, interval=4, end=13)
    assert [round for round in range(1, 20) if method.is_readjustment(round)] == [4, 8, 12]
    assert not any(named(TOPOLOGIES, "rigl")(0.5, interval=0, end=13).is_readjustment(round) for round in range(1, 20))
    assert not any(
        named(TOPOLOGIES, "static")(0.5, interval=1, end=13).is_readjustment(round) for round in range(1, 20)
    )


def test_the_last_round_never_readjusts_so_that_grown_weights_are_trained():
    for name in DYNAMIC:
        assert not named(TOPOLOGIES, name)(0.5, interval=1, end=10).is_readjustment(10)
