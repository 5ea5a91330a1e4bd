"""Topologies in real rounds, with the project's own clients, local training and payloads."""

import pytest
import torch

from fedsparse.catalogue import STRATEGIES, TOPOLOGIES
from fedsparse.clients.workbench import Workbench
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.experiment import Experiment
from fedsparse.sparsity import Topology, weight_layers
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.densities import budget
from fedsparse.sparsity.masks import decode_mask
from fedsparse.sparsity.topology import initialise_
from fedsparse.strategies.saliency import ask_saliency
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.server_topology import ServerTopology
from fedsparse.training.evaluation import dense_gradient
from fedsparse.vector import Layout
from tests.strategies.federation import SETTINGS, TRAFFIC, binding_of, play

FIXED_COUNTS = ("static", "set", "rigl", "feddst", "ssfl")
DYNAMIC = ("set", "rigl", "feddst", "prunefl")


@pytest.mark.parametrize("method", TOPOLOGIES)
def test_the_invariants_hold_after_every_round(tiny_dataset: str, method: str) -> None:
    rounds = play(tiny_dataset, topology=method)
    first = rounds[0].topology
    keep = budget(first.layers, 0.5)
    for _, weights, topology, metrics, _ in rounds:
        assert not weights[: topology.mask.numel()][~topology.mask].any()
        assert weights.isfinite().all()
        assert topology.mask[~topology.prunable].all()
        assert metrics["topology/density"] == topology.density
        if method in FIXED_COUNTS:
            assert topology.counts == first.counts
        if method in (*FIXED_COUNTS, "prunefl"):
            assert int((topology.mask & topology.prunable).sum()) == keep
        if method in ("dense", "small-dense"):
            assert topology.mask.all()
    changes = [metrics["topology/changed"] > 0 for *_, metrics, _ in rounds[1:]]
    if method in DYNAMIC:
        assert changes == [True, True, True, False, False]
    if method in ("static", "ssfl", "dense", "small-dense"):
        assert not any(changes)
    if method == "magnitude":
        assert int((rounds[4].topology.mask & first.prunable).sum()) == keep


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_only_weights_that_exist(tiny_dataset: str, strategy: str) -> None:
    lr = 0.01 if strategy == "fedadam" else 1.0
    for _, weights, topology, *_ in play(tiny_dataset, strategy=strategy, topology="feddst", **{"server-lr": lr}):
        assert not weights[: topology.mask.numel()][~topology.mask].any()
        assert weights.abs().max() < 10


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sparsity_zero_is_the_dense_strategy_to_the_bit(tiny_dataset: str, strategy: str) -> None:
    dense, static, rigl = (  # a sparsity that rounds to no weight: settings refuse 0 beside a topology
        play(tiny_dataset, strategy=strategy, topology=method, sparsity=1e-9)[-1].weights
        for method in ("dense", "static", "rigl")
    )
    assert torch.equal(dense, static)
    assert torch.equal(dense, rigl)


@pytest.mark.parametrize("method", DYNAMIC)
def test_ratio_zero_leaves_the_mask_identical(tiny_dataset: str, method: str) -> None:
    rounds = play(tiny_dataset, topology=method, **{"readjustment-ratio": 0})
    assert len({r.topology.hash for r in rounds}) == 1


@pytest.mark.parametrize("method", TOPOLOGIES)
def test_two_runs_with_one_seed_have_identical_masks(tiny_dataset: str, method: str) -> None:
    a, b = (play(tiny_dataset, rounds=3, topology=method) for _ in range(2))
    assert [r.topology.hash for r in a] == [r.topology.hash for r in b]
    assert torch.equal(a[-1].weights, b[-1].weights)


@pytest.mark.parametrize("growth", ["gradient", "random", "momentum"])
@pytest.mark.parametrize("method", ["feddst", "rigl"])
def test_every_growth_changes_the_topology_and_keeps_its_counts(tiny_dataset: str, method: str, growth: str) -> None:
    rounds = play(tiny_dataset, rounds=3, topology=method, growth=growth)
    assert all(r.topology.counts == rounds[0].topology.counts for r in rounds)
    assert len({r.topology.hash for r in rounds}) == 4


@pytest.mark.parametrize("method", DYNAMIC)
def test_clients_lost_in_readjustment_rounds_leave_the_mask_valid_and_exact(tiny_dataset: str, method: str) -> None:
    everyone = {"clients": 10, "clients-per-round": 10}
    lost = {(round, client) for round in (1, 2) for client in (3, 7)}
    rounds = play(tiny_dataset, rounds=4, lost=lost, topology=method, **everyone)
    keep = budget(rounds[0].topology.layers, 0.5)
    for number, weights, topology, metrics, _ in rounds[1:]:
        assert metrics.get("comm/failures", 0) == (2 if number < 3 else 0)
        assert metrics["comm/clients"] == (8 if number < 3 else 10)
        assert int((topology.mask & topology.prunable).sum()) == keep
        assert not weights[: topology.mask.numel()][~topology.mask].any()
    assert rounds[1].metrics["topology/changed"] > 0


def test_a_mask_travels_to_each_client_that_lacks_it_and_is_counted(tiny_dataset: str) -> None:
    rounds = play(tiny_dataset, rounds=6, topology="rigl", **{"eval-clients": False})
    held: dict[int, str] = {}
    for number in range(1, 7):
        traffic = [(m, r) for m, r in TRAFFIC if m.content["task"]["round"] == number]
        for message, _ in traffic:
            client, name = message.metadata.dst_node_id, message.content["task"]["topology"]
            assert ("topology" in message.content) == (held.get(client) != name)
            held[client] = name
        for way, side in (("down", 0), ("up", 1)):
            arrays = [a for pair in traffic for r in pair[side].content.array_records.values() for a in r.values()]
            assert rounds[number].metrics[f"comm/{way}link_bytes"] == sum(len(a.data) for a in arrays)
    assert len({m.content["task"]["topology"] for m, _ in TRAFFIC}) == 4


def test_at_sparsity_one_half_uploads_and_downloads_are_half_as_long(tiny_dataset: str) -> None:
    rounds = play(tiny_dataset, rounds=3, topology="static", compressor="none", values="f32")
    bound = 0.5 * 4 * rounds[0].weights.numel() * 1.01
    for message, reply in TRAFFIC:
        assert len(reply.content["arrays"]["update"].data) <= bound
        assert len(message.content["arrays"]["weights"].data) <= bound


@pytest.mark.parametrize("compressor", ["none", "topk", "hggtopk", "dgc", "randomk"])
@pytest.mark.parametrize("method", ["static", "feddst", "sparsyfed"])
def test_an_update_holds_only_weights_that_the_client_has(tiny_dataset: str, compressor: str, method: str) -> None:
    rounds = play(tiny_dataset, rounds=3, topology=method, compressor=compressor, density=0.1)
    full = {r.topology.hash: r.topology for r in rounds}
    layout = Layout.of(model := Experiment(Config()).model.module)
    layers = weight_layers(model, layout)
    for message, reply in TRAFFIC:
        topology, arrays = full[int(message.content["task"]["topology"], 16)], reply.content["arrays"]
        if "mask" in arrays:
            topology = decode_mask(arrays["mask"].data, layers, layout.parameters, topology)
            if method == "sparsyfed":
                assert int((topology.mask & topology.prunable).sum()) == budget(layers, 0.5)
        compact = Compact(layout, topology)
        update = compact.scatter(decode(arrays["update"].data, compact.layout, binding_of(message))).to_dense()
        assert not update[: layout.parameters][~topology.mask.numpy()].any()


def test_voting_clients_send_every_weight_that_they_hold_and_compress_again_afterwards(tiny_dataset: str) -> None:
    play(tiny_dataset, topology="feddst", compressor="topk", density=0.01, error_feedback=True)
    held = 0.5 * Experiment(Config()).layout.parameters
    for message, reply in TRAFFIC:
        voting = message.content["task"]["round"] < 4
        assert (len(reply.content["arrays"]["update"].data) > held) is voting


def test_initial_weights_are_scaled_in_sparse_layers_unless_the_method_chose_the_largest(tiny_dataset: str) -> None:
    for method, scaled in (("static", True), ("ssfl", False)):
        (start,) = play(tiny_dataset, rounds=0, topology=method)
        dense = Experiment(Config()).model.vector.clone()
        plain = start.topology.apply_(dense.clone())
        wanted = initialise_(dense, start.topology) if scaled else plain
        assert torch.equal(start.weights, wanted)
        assert torch.equal(start.weights, plain) is not scaled


def test_the_first_topology_by_magnitude_is_each_layers_largest_initial_weights_unscaled(tiny_dataset: str) -> None:
    (start,) = play(tiny_dataset, rounds=0, **{"topology": "feddst", "initial-mask": "magnitude", "sparsity": 0.6})
    weights = Experiment(Config()).model.vector
    for layer, count in zip(start.topology.layers, start.topology.counts, strict=True):
        held = start.topology.mask[layer.slice].nonzero().squeeze(1)
        assert sorted(weights[layer.slice].abs().topk(count).indices.tolist()) == held.tolist()
    assert torch.equal(start.weights, start.topology.apply_(weights.clone()))
    assert start.topology.density == pytest.approx(0.4, abs=1e-4)


def asked(settings: dict) -> torch.Tensor:
    """The clients' saliencies of the initial weights, as the server sums them."""
    experiment = Experiment(config := Config.from_mapping(settings))
    dense = ServerTopology(experiment, Topology.full(experiment.layers, experiment.layout.parameters))
    model = ServerModel(experiment, dense, experiment.model.vector.clone())
    with LocalGrid("fedsparse.clients.client_app:app", config.clients) as grid:
        return ask_saliency(grid, model, range(config.clients))[0]


def test_saliency_is_that_of_the_clients_losses_weighted_by_their_samples(tiny_dataset: str) -> None:
    settings = SETTINGS | {"dataset": tiny_dataset, "topology": "ssfl", "sparsity": 0.8}
    total, bench = asked(settings), Workbench(Config.from_mapping(settings))
    model, layers, layout, wanted = bench.model, bench.layers, bench.layout, torch.zeros(bench.layout.parameters)
    prunable = Topology.full(layers, layout.parameters).prunable
    for client in range(bench.config.clients):
        indices, _ = bench.samples(client)
        gradient = dense_gradient(bench.model, bench.fetch(indices), len(indices), bench.task)
        scores = (gradient * model.vector[: layout.parameters]).abs() * prunable
        top = scores.topk(budget(layers, 0.8)).indices
        wanted[top] += len(indices) * scores[top]
    torch.testing.assert_close(total.float(), wanted, rtol=2.0**-7, atol=0.0)


def test_saliency_of_a_mini_batch_is_that_of_as_many_random_samples_of_each_client(tiny_dataset: str) -> None:
    changes = {"dataset": tiny_dataset, "topology": "ssfl", "sparsity": 0.5, "dense-layers": "", "batch-size": 4}
    totals = {samples: asked(SETTINGS | changes | {"saliency-samples": samples}) for samples in (0, 4, 10**6)}
    assert torch.equal(totals[0].count_nonzero(), totals[10**6].count_nonzero())
    torch.testing.assert_close(totals[0], totals[10**6], rtol=2.0**-7, atol=1e-5)  # all samples in another order
    assert not torch.allclose(totals[0], totals[4], rtol=0.1)
    assert torch.equal(totals[4], asked(SETTINGS | changes | {"saliency-samples": 4}))


def test_ssfl_keeps_what_matters_most_to_the_clients_together_and_counts_what_asking_cost(tiny_dataset: str) -> None:
    played = play(tiny_dataset, rounds=1, topology="ssfl", sparsity=0.8)[0]
    assert played.metrics["comm/uplink_bytes"] > 0
    assert played.metrics["comm/downlink_bytes"] > 6 * 4 * played.weights.numel()
    kept = played.weights[: played.topology.mask.numel()][played.topology.mask & played.topology.prunable].abs()
    everything = play(tiny_dataset, rounds=1, topology="dense")[0].weights[: played.topology.mask.numel()]
    assert kept.mean() > everything[played.topology.prunable].abs().mean()  # |g w| favours large weights


def test_small_dense_has_as_many_weights_as_a_sparse_model(tiny_dataset: str) -> None:
    dense, sparse, small = (
        play(tiny_dataset, rounds=1, topology=method, sparsity=0.8)[0] for method in ("dense", "static", "small-dense")
    )
    target = int(sparse.topology.mask.sum())
    assert 0.85 * target < small.weights.numel() <= target < dense.weights.numel()


def test_consensus_of_the_clients_is_measured(tiny_dataset: str) -> None:
    for method in ("rigl", "feddst", "sparsyfed"):
        rounds = play(tiny_dataset, rounds=1, topology=method)
        assert 0 < rounds[1].details["topology/consensus"] < 1, method
    for method in ("static", "prunefl"):  # clients report on no weight, or on all, and so prefer none
        assert "topology/consensus" not in play(tiny_dataset, rounds=1, topology=method)[1].details
