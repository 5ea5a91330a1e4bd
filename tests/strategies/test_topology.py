"""Topologies on real rounds: the project's own clients, local training and payloads."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedsparse.compression import VALUES, ClientState, UpdateCodec, decode, wire
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.records import mask_array, payload_array
from fedsparse.sparsity import METHODS, Topology, weight_layers
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.densities import budget
from fedsparse.sparsity.masks import decode_mask, encode_mask
from fedsparse.sparsity.prune import prune_model
from fedsparse.sparsity.readjust import Report, readjust
from fedsparse.sparsity.reports import encode_report, report_layout
from fedsparse.sparsity.setup import build_method
from fedsparse.vector import FlatModel, Layout
from strategies import STRATEGIES, FedAvg
from strategies.topology import REMEMBERED, ServerTopology
from tests.strategies.federation import TRAFFIC, model_of, network, play

FIXED_COUNTS = ("static", "set", "rigl", "feddst", "ssfl")
DYNAMIC = ("set", "rigl", "feddst", "prunefl")
MODEL = network()
LAYOUT = Layout.of(MODEL)
LAYERS = weight_layers(MODEL, LAYOUT, [])
N, P = LAYOUT.size, LAYOUT.parameters


@pytest.mark.parametrize("method", METHODS)
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
def test_every_strategy_trains_only_what_exists(tiny_dataset: str, strategy: str) -> None:
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


@pytest.mark.parametrize("method", METHODS)
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


def test_masks_travel_to_those_who_lack_them_and_are_counted(tiny_dataset: str) -> None:
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
    layout = Layout.of(model := model_of(Config()).module)
    layers = weight_layers(model, layout)
    for message, reply in TRAFFIC:
        topology, arrays = full[int(message.content["task"]["topology"], 16)], reply.content["arrays"]
        if "mask" in arrays:
            topology = decode_mask(arrays["mask"].data, layers, layout.parameters, topology)
            if method == "sparsyfed":
                assert int((topology.mask & topology.prunable).sum()) == budget(layers, 0.5)
        compact = Compact(layout, topology)
        update = compact.widen(decode(arrays["update"].data, compact.layout)).to_dense()
        assert not update[: layout.parameters][~topology.mask.numpy()].any()


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
    for method in ("static", "prunefl"):  # whose clients wish for nothing: they say nothing, or tell about everything
        assert "topology/consensus" not in play(tiny_dataset, rounds=1, topology=method)[1].details


def test_a_client_that_wishes_for_the_servers_mask_counts_in_the_consensus() -> None:
    strategy = server(topology="feddst", **{"readjustment-interval": 1})
    start = strategy.topology.topology
    moved = readjust(start, torch.rand(P), torch.rand(P), 0.5)
    aggregate(strategy, [(torch.ones(N), own, 1) for own in (moved, start)])
    shared, count = (int((mask & start.prunable).sum()) for mask in (moved.mask & start.mask, start.mask))
    assert strategy.topology.details["topology/consensus"] == pytest.approx(shared / count)


# A strategy with made-up replies


def server(**settings: object) -> FedAvg:
    config = Config.from_mapping(
        {"clients": 2, "clients-per-round": 2, "rounds": 9, "dense-layers": "", "sparsity": 0.5} | settings
    )
    topology = ServerTopology.of_round_1(config, LAYOUT, LAYERS, build_method(config))
    return STRATEGIES[config.strategy](config, topology, torch.zeros(N), range(2))


def own_reply(
    message: Message, strategy: FedAvg, update: torch.Tensor, own: Topology, samples: int, round: int = 1
) -> Message:
    compact = Compact(LAYOUT, own)
    payload, _ = UpdateCodec(compact.layout, "none").encode(compact.gather(update), ClientState(), round=round, seed=0)
    arrays = ArrayRecord({"update": payload_array(payload, compact.layout)})
    if own is not strategy.topology.topology:
        arrays["mask"] = mask_array(encode_mask(own, strategy.topology.topology))
    metrics = MetricRecord({"num-examples": samples, "train/loss": 1.0})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def aggregate(strategy: FedAvg, clients, order: int = 1) -> torch.Tensor:
    grid = LocalGrid("tests.fedsparse.engine.obedient:app", clients=2)
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    replies = [own_reply(m, strategy, *client) for m, client in zip(messages, clients, strict=True)]
    strategy.aggregate_train(1, replies[::order])
    return strategy.weights


def halves(strategy: FedAvg) -> tuple[Topology, Topology]:
    """Masks of half of every layer that have no prunable weight in common."""
    start = strategy.topology.topology
    odd = torch.arange(P) % 2 == 1
    return tuple(start.changed(half | ~start.prunable, counts=True) for half in (odd, ~odd))  # type: ignore[return-value]


def test_two_clients_with_disjoint_masks_are_copied_and_not_halved() -> None:
    strategy = server(topology="sparsyfed", **{"sparsity-distribution": "uniform"})
    a, b = halves(strategy)
    u = torch.randn(2, N)
    got = aggregate(strategy, [(u[0], a, 5), (u[1], b, 50)])
    both = (a.mask & b.mask).nonzero().squeeze(1)
    assert torch.equal(got[:P][a.mask & ~b.mask], u[0][:P][a.mask & ~b.mask])
    assert torch.equal(got[:P][b.mask & ~a.mask], u[1][:P][b.mask & ~a.mask])
    np.testing.assert_allclose(got[both], (5 * u[0][both] + 50 * u[1][both]) / 55, rtol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_unequal_sample_counts_change_the_average_and_the_order_of_clients_does_not(own: bool) -> None:
    u, results = torch.randn(2, N), []
    for samples, order in (((1, 3), 1), ((1, 3), -1), ((1, 1), 1)):
        strategy = server(topology="sparsyfed", **{"sparsity-distribution": "uniform"})
        masks = halves(strategy) if own else [strategy.topology.topology] * 2
        results.append(aggregate(strategy, list(zip(u, masks, samples, strict=True)), order).clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_fedavgm_forgets_the_momentum_of_weights_that_are_removed() -> None:
    strategy = server(topology="set", strategy="fedavgm", **{"readjustment-interval": 1, "readjustment-ratio": 1})
    start = strategy.topology.topology
    aggregate(strategy, [(torch.randn(N), start, 1), (torch.randn(N), start, 1)])
    changed = start.mask ^ strategy.topology.topology.mask
    assert changed.any()
    assert not strategy.velocity[changed].any()
    assert not strategy.velocity[~strategy.topology.topology.mask].any()
    assert strategy.velocity.any()


def ones_and_zeros(topology: ServerTopology) -> tuple[torch.Tensor, torch.Tensor]:
    mask, prunable = topology.topology.mask, topology.topology.prunable
    return (mask & prunable).nonzero().squeeze(1), (~mask).nonzero().squeeze(1)


def test_a_client_that_missed_a_few_topologies_gets_a_difference_and_after_many_the_whole_mask() -> None:
    topology = server(topology="static").topology
    start, generator = topology.topology, torch.Generator().manual_seed(0)
    topology.mask_for(0)
    topology.answered(0)
    lengths = []
    for _ in range(REMEMBERED + 1):
        held = topology._held[0]
        record = topology.mask_for(0)
        topology._held[0] = held
        lengths.append(len(record["mask"].data) if record else 0)
        mask = topology.topology.mask.clone()
        swap = torch.cat(
            [side[torch.randperm(len(side), generator=generator)[:3]] for side in ones_and_zeros(topology)]
        )
        mask[swap] = ~mask[swap]
        topology._set(topology.topology.changed(mask, counts=True))
    whole = len(encode_mask(topology.topology))
    assert lengths[0] == 0
    assert 0 < lengths[1] < whole / 2
    assert len(topology.mask_for(0)["mask"].data) == whole
    assert start.version == 0


def test_a_client_that_has_not_answered_is_sent_the_whole_mask_again() -> None:
    topology = server(topology="static").topology
    first = topology.mask_for(0)
    assert len(topology.mask_for(0)["mask"].data) >= len(first["mask"].data)
    topology.answered(0)
    assert topology.mask_for(0) is None


def test_a_lost_reply_costs_no_mask_where_none_was_sent_and_a_client_that_fails_is_sent_the_whole_one() -> None:
    strategy = server(topology="static")
    grid = LocalGrid("tests.fedsparse.engine.obedient:app", clients=2)
    sent = []
    for round, answers in ((1, (True, True)), (2, (True, False)), (3, (True, None)), (4, (True, True))):
        messages = list(strategy.configure_train(round, strategy.broadcast(round), ConfigRecord(), grid))
        sent.append("topology" in messages[1].content)
        start = strategy.topology.topology
        replies = [
            own_reply(m, strategy, torch.ones(N), start, 1, round) for m, a in zip(messages, answers, strict=True) if a
        ]
        if answers[1] is None:
            replies.append(Message(Error(2, "it holds another topology"), reply_to=messages[1]))
        strategy.aggregate_train(round, replies)
    assert sent == [True, False, False, True]


# Replies that are well-formed, but not what was asked for


def refused(strategy: FedAvg, *, report: bytes = b"", own: Topology | None = None) -> str:
    """Why the first of two clients is refused that sends this report, or uploads under this mask; "" if it is not."""
    grid = LocalGrid("tests.fedsparse.engine.obedient:app", clients=2)
    start = strategy.topology.topology
    messages = strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid)
    masks = zip(messages, (own or start, start), strict=True)
    first, second = (own_reply(message, strategy, torch.ones(N), mask, 1) for message, mask in masks)
    if report:
        first.content["arrays"]["report"] = payload_array(report, report_layout(LAYOUT))
    strategy.aggregate_train(1, [first, second])
    assert strategy.metrics["comm/clients"] == 2 - len(strategy.failures)
    return "".join(strategy.failures)


def report_of(*sizes: int, round: int = 1) -> bytes:
    """A report about every weight, in segments of these sizes."""
    codec, layout = VALUES["f32"], report_layout(LAYOUT)
    values = [np.ones(size, np.float32) for size in sizes]
    return wire.encode(
        layout, round, [wire.Coded(v.size, None, codec, codec.encode(v, np.array([v.size]), 0)) for v in values]
    )


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (report_of(10, P - 10), "a report of 2 segments"),
        (report_of(P, round=2), "a report of round 2"),
        (report_of(P)[:-1], "damaged"),
        (report_of(P), ""),
    ],
)
def test_a_report_of_another_structure_costs_its_client_the_round_and_not_the_run(report: bytes, reason: str) -> None:
    failure = refused(server(topology="rigl", **{"readjustment-interval": 1}), report=report)
    assert reason in failure
    assert bool(reason) == bool(failure)


@pytest.mark.parametrize("settings", [{"topology": "static"}, {"topology": "rigl"}, {"topology": "feddst"}])
def test_a_report_that_nobody_asked_for_is_refused(settings: dict[str, str]) -> None:
    report = encode_report(Report(torch.tensor([0]), torch.tensor([1.0])), LAYOUT, 1)
    assert "nobody asked for" in refused(server(**settings), report=report)


UPLOADS = {"upload-pruning": "magnitude", "upload-sparsity": 0.5, "sparsity": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {"topology": "static"},
        {"topology": "rigl", "readjustment-interval": 1},
        {"topology": "feddst", "readjustment-interval": 2},
        {"topology": "feddst", "readjustment-interval": 1},
        {"topology": "sparsyfed"},
        UPLOADS,
        UPLOADS | {"nm": "2:4"},
    ],
)
@pytest.mark.parametrize("kept", [0, 1, 0.25])
def test_a_mask_that_the_method_does_not_leave_a_client_is_refused(settings: dict[str, object], kept: float) -> None:
    strategy = server(**settings)
    start = strategy.topology.topology
    own = start.changed(~start.prunable | (torch.rand(P) < kept), counts=True)
    assert "mask" in refused(strategy, own=own) or own is start
    new = strategy.topology.topology
    assert not strategy.weights[:P][~new.mask].any()
    assert min(new.counts) > 0


@pytest.mark.parametrize("settings", [UPLOADS, UPLOADS | {"nm": "2:4"}, {"topology": "sparsyfed"}])
@pytest.mark.parametrize("seed", range(3))
def test_the_mask_of_an_honest_client_is_taken(settings: dict[str, object], seed: int) -> None:
    strategy, model = server(**settings), FlatModel(network())
    start = strategy.topology.topology
    torch.manual_seed(seed)
    model.vector[:P].normal_()
    if "topology" in settings:
        own = strategy.topology.method.upload_topology(start, model.vector[:P])
    else:
        masks = prune_model(model.module, [torch.randn(9, 1, 8, 8)], 0.5, nm=strategy.config.n_of_m, dense_layers=[])
        mask = start.mask.clone()
        for layer in LAYERS:
            mask[layer.slice] = masks[layer.name].flatten()
        own = start.changed(mask, counts=True)
    assert refused(strategy, own=own) == ""
