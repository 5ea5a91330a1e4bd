"""The server's side of a topology, with made-up replies: averages, sent masks, and refused replies."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedsparse.aggregation.mean import Mean
from fedsparse.compression import ClientState, PayloadError, UpdateCodec, wire
from fedsparse.compression.values import F32
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.records import payload_array, plain_array
from fedsparse.sparsity import Topology, weight_layers
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.masks import decode_mask, encode_mask
from fedsparse.sparsity.one_shot import prune_model
from fedsparse.sparsity.readjust import Report, readjust
from fedsparse.sparsity.reports import encode_report, report_layout
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.replies import Replies, Upload
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.server_topology import REMEMBERED, ServerTopology
from fedsparse.vector import FlatModel, Layout
from tests.strategies.federation import binding_of, experiment_of, network

MODEL = network()
LAYOUT = Layout.of(MODEL)
LAYERS = weight_layers(MODEL, LAYOUT, [])
N, P = LAYOUT.size, LAYOUT.parameters


def server(**settings: object) -> FedAvg:
    config = Config.from_mapping(
        {"clients": 2, "clients-per-round": 2, "rounds": 9, "dense-layers": "", "sparsity": 0.5} | settings
    )
    experiment = experiment_of(config, MODEL)
    return FedAvg(ServerModel(experiment, ServerTopology.of_round_1(experiment), torch.zeros(N)), range(2))


def drawn(clients: int) -> torch.Tensor:
    """Random updates, one a row; running variances are not negative."""
    updates = torch.randn(clients, N)
    updates[:, P:].abs_()
    return updates


def own_reply(
    message: Message, strategy: FedAvg, update: torch.Tensor, own: Topology, samples: int, round: int = 1
) -> Message:
    compact = Compact(LAYOUT, own)
    payload, _ = UpdateCodec(compact.layout, "none").encode(compact.gather(update), ClientState(), round=round, seed=0)
    arrays = ArrayRecord({"update": payload_array(wire.bind(payload, binding_of(message)), compact.layout)})
    if own is not strategy.model.topology.current:
        arrays["mask"] = plain_array(encode_mask(own, strategy.model.topology.current))
    metrics = MetricRecord({"num-examples": samples, "train/loss": 1.0})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def aggregate(strategy: FedAvg, clients, order: int = 1) -> torch.Tensor:
    grid = LocalGrid("tests.fedsparse.engine.obedient:app", clients=2)
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    replies = [own_reply(m, strategy, *client) for m, client in zip(messages, clients, strict=True)]
    strategy.aggregate_train(1, replies[::order])
    return strategy.model.weights


def halves(strategy: FedAvg) -> tuple[Topology, Topology]:
    """Masks of half of every layer that have no prunable weight in common."""
    start = strategy.model.topology.current
    odd = torch.arange(P) % 2 == 1
    return tuple(start.changed(half | ~start.prunable, counts=True) for half in (odd, ~odd))  # type: ignore[return-value]


def test_reports_are_averaged_by_samples() -> None:
    start = server(topology="rigl").model.topology.current
    replies = Replies(Mean(N, start.mask), start)
    update = wire.decode(UpdateCodec(LAYOUT, "none").encode(torch.zeros(N), ClientState(), round=1, seed=0)[0], LAYOUT)
    for samples, values in ((1, [8.0, 0.0]), (3, [0.0, 4.0])):
        replies.add(Upload(update, None, Report(torch.tensor([2, 5]), torch.tensor(values)), samples, {}))
    assert replies.reports is not None
    assert replies.reports.mean[[2, 5]].tolist() == [2.0, 3.0]


def test_a_client_that_wishes_for_the_servers_mask_counts_in_the_consensus() -> None:
    strategy = server(topology="feddst", **{"readjustment-interval": 1})
    start = strategy.model.topology.current
    moved = readjust(start, torch.rand(P), torch.rand(P), 0.5)
    aggregate(strategy, [(torch.ones(N), own, 1) for own in (moved, start)])
    shared, count = (int((mask & start.prunable).sum()) for mask in (moved.mask & start.mask, start.mask))
    assert strategy.model.topology.details["topology/consensus"] == pytest.approx(shared / count)


def test_two_clients_with_disjoint_masks_are_copied_and_not_halved() -> None:
    strategy = server(topology="sparsyfed", **{"sparsity-distribution": "uniform"})
    a, b = halves(strategy)
    u = drawn(2)
    got = aggregate(strategy, [(u[0], a, 5), (u[1], b, 50)])
    both = (a.mask & b.mask).nonzero().squeeze(1)
    assert torch.equal(got[:P][a.mask & ~b.mask], u[0][:P][a.mask & ~b.mask])
    assert torch.equal(got[:P][b.mask & ~a.mask], u[1][:P][b.mask & ~a.mask])
    np.testing.assert_allclose(got[both], (5 * u[0][both] + 50 * u[1][both]) / 55, rtol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_unequal_sample_counts_change_the_average_and_the_order_of_clients_does_not(own: bool) -> None:
    u, results = drawn(2), []
    for samples, order in (((1, 3), 1), ((1, 3), -1), ((1, 1), 1)):
        strategy = server(topology="sparsyfed", **{"sparsity-distribution": "uniform"})
        masks = halves(strategy) if own else [strategy.model.topology.current] * 2
        results.append(aggregate(strategy, list(zip(u, masks, samples, strict=True)), order).clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_fedavgm_forgets_the_momentum_of_weights_that_are_removed() -> None:
    strategy = server(topology="set", strategy="fedavgm", **{"readjustment-interval": 1, "readjustment-ratio": 1})
    start = strategy.model.topology.current
    aggregate(strategy, [(drawn(1)[0], start, 1), (drawn(1)[0], start, 1)])
    changed = start.mask ^ strategy.model.topology.current.mask
    assert changed.any()
    assert not strategy.model.optimizer.memory["velocity"][changed].any()
    assert not strategy.model.optimizer.memory["velocity"][~strategy.model.topology.current.mask].any()
    assert strategy.model.optimizer.memory["velocity"].any()


def ones_and_zeros(topology: ServerTopology) -> tuple[torch.Tensor, torch.Tensor]:
    mask, prunable = topology.current.mask, topology.current.prunable
    return (mask & prunable).nonzero().squeeze(1), (~mask).nonzero().squeeze(1)


def test_a_client_that_missed_a_few_topologies_gets_a_difference_and_after_many_the_whole_mask() -> None:
    topology = server(topology="static").model.topology
    start, generator = topology.current, torch.Generator().manual_seed(0)
    lengths = []
    for _ in range(REMEMBERED + 1):
        record = topology.mask_for(start.hash)
        lengths.append(len(record["mask"].data) if record else 0)
        mask = topology.current.mask.clone()
        swap = torch.cat(
            [side[torch.randperm(len(side), generator=generator)[:3]] for side in ones_and_zeros(topology)]
        )
        mask[swap] = ~mask[swap]
        topology._set(topology.current.changed(mask, counts=True))
    whole = len(encode_mask(topology.current))
    assert lengths[0] == 0
    assert 0 < lengths[1] < whole / 2
    assert len(topology.mask_for(start.hash)["mask"].data) == whole
    assert start.version == 0


def test_an_unknown_topology_is_answered_with_the_whole_mask_and_the_present_one_with_no_mask() -> None:
    topology = server(topology="static").model.topology
    assert len(topology.mask_for(None)["mask"].data) >= len(topology.mask_for(topology.start)["mask"].data)
    assert topology.mask_for(topology.current.hash) is None


def test_a_client_whose_reply_was_lost_is_sent_the_whole_mask_again() -> None:
    strategy = server(topology="set", **{"readjustment-interval": 1, "readjustment-ratio": 0.1})
    grid = LocalGrid("tests.fedsparse.engine.obedient:app", clients=2)
    sent = []
    for round, answering in ((1, 2), (2, 1), (3, 2)):
        messages = list(strategy.configure_train(round, strategy.broadcast(round), ConfigRecord(), grid))
        sent.append([message.content["topology"]["mask"].data for message in messages])
        current = strategy.model.topology.current
        replies = [own_reply(m, strategy, torch.ones(N), current, 1, round) for m in messages[:answering]]
        strategy.aggregate_train(round, replies)
    with pytest.raises(PayloadError, match="difference from topology"):
        decode_mask(sent[2][0], LAYERS, P)
    assert decode_mask(sent[2][1], LAYERS, P).hash == current.hash


def test_a_lost_reply_to_a_message_without_mask_costs_no_mask_and_a_client_that_fails_is_sent_the_whole_mask() -> None:
    strategy = server(topology="static")
    grid = LocalGrid("tests.fedsparse.engine.obedient:app", clients=2)
    sent = []
    for round, answers in ((1, (True, True)), (2, (True, False)), (3, (True, None)), (4, (True, True))):
        messages = list(strategy.configure_train(round, strategy.broadcast(round), ConfigRecord(), grid))
        sent.append("topology" in messages[1].content)
        start = strategy.model.topology.current
        replies = [
            own_reply(m, strategy, torch.ones(N), start, 1, round) for m, a in zip(messages, answers, strict=True) if a
        ]
        if answers[1] is None:
            replies.append(Message(Error(2, "it holds another topology"), reply_to=messages[1]))
        strategy.aggregate_train(round, replies)
    assert sent == [True, False, False, True]


# Well-formed replies with content that the server did not ask for


def refused(strategy: FedAvg, *, report: bytes = b"", own: Topology | None = None) -> str:
    """The reason why a client with this report, or with an upload under this mask, is refused; "" if it is accepted."""
    grid = LocalGrid("tests.fedsparse.engine.obedient:app", clients=2)
    start = strategy.model.topology.current
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    masks = zip(messages, (own or start, start), strict=True)
    first, second = (own_reply(message, strategy, torch.ones(N), mask, 1) for message, mask in masks)
    if report:
        first.content["arrays"]["report"] = payload_array(
            wire.bind(report, binding_of(messages[0])), report_layout(LAYOUT)
        )
    strategy.aggregate_train(1, [first, second])
    assert strategy.cohort.tally.metrics["comm/clients"] == 2 - len(strategy.cohort.tally.failures)
    return "".join(strategy.cohort.tally.failures)


def report_of(*sizes: int, round: int = 1) -> bytes:
    """A report about every weight, in segments of these sizes."""
    segments = [wire.Coded.dense(np.ones(size, np.float32), F32()) for size in sizes]
    return wire.encode(report_layout(LAYOUT), round, segments)


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
def test_an_unexpected_report_is_refused(settings: dict[str, str]) -> None:
    report = encode_report(Report(torch.tensor([0]), torch.tensor([1.0])), LAYOUT, 1)
    assert "did not ask for" in refused(server(**settings), report=report)


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
def test_a_mask_that_the_method_does_not_allow_is_refused(settings: dict[str, object], kept: float) -> None:
    strategy = server(**settings)
    start = strategy.model.topology.current
    own = start.changed(~start.prunable | (torch.rand(P) < kept), counts=True)
    assert "mask" in refused(strategy, own=own) or own is start
    new = strategy.model.topology.current
    assert not strategy.model.weights[:P][~new.mask].any()
    assert min(new.counts) > 0


@pytest.mark.parametrize("settings", [UPLOADS, UPLOADS | {"nm": "2:4"}, {"topology": "sparsyfed"}])
@pytest.mark.parametrize("seed", range(3))
def test_the_mask_of_an_honest_client_is_accepted(settings: dict[str, object], seed: int) -> None:
    strategy, model = server(**settings), FlatModel(network())
    start = strategy.model.topology.current
    torch.manual_seed(seed)
    model.vector[:P].normal_()
    if "topology" in settings:
        own = strategy.model.topology.method.upload_topology(start, model.vector[:P])
    else:
        masks = prune_model(model.module, [torch.randn(9, 1, 8, 8)], 0.5, nm=strategy.config.n_of_m, dense_layers=[])
        mask = start.mask.clone()
        for layer in LAYERS:
            mask[layer.slice] = masks[layer.name].flatten()
        own = start.changed(mask, counts=True)
    assert refused(strategy, own=own) == ""
