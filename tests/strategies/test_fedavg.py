"""Strategies over real payloads, against the definitions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from torch import nn

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.wire import bind
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.records import payload_array
from fedsparse.errors import RunFailed
from fedsparse.network import Network
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.server_topology import ServerTopology
from fedsparse.vector import Layout
from tests.strategies.federation import binding_of, experiment_of

MODEL = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
LAYOUT = Layout.of(MODEL)
N, P = LAYOUT.size, LAYOUT.parameters


def make(**settings: object) -> tuple[FedAvg, LocalGrid]:
    config = Config.from_mapping({"clients": 3, "clients_per_round": 3, "rounds": 9} | settings)
    experiment = experiment_of(config, MODEL)
    strategy = FedAvg(ServerModel(experiment, ServerTopology.of_round_1(experiment), torch.zeros(N)), range(3))
    return strategy, LocalGrid("tests.fedsparse.engine.obedient:app", clients=3)


def reply(message: Message, update: np.ndarray, samples: int, round: int) -> Message:
    payload, _ = UpdateCodec(LAYOUT, "none").encode(update.astype(np.float32), ClientState(), round=round, seed=0)
    records = {
        "arrays": ArrayRecord({"update": payload_array(bind(payload, binding_of(message)), LAYOUT)}),
        "metrics": MetricRecord({"num-examples": samples, "train/loss": 1.0 * samples, "train/accuracy": 0.5}),
    }
    return Message(RecordDict(records), reply_to=message)


def play(strategy: FedAvg, grid: LocalGrid, round: int, answer: Callable[[int, Message], Message | None]) -> None:
    messages = list(strategy.configure_train(round, strategy.broadcast(round), ConfigRecord(), grid))
    replies = [answer(m.metadata.dst_node_id, m) for m in messages]
    strategy.aggregate_train(round, [r for r in replies if r is not None])


def updates(round: int) -> np.ndarray:
    drawn = np.random.default_rng(round).normal(size=(3, N)).astype(np.float32)
    drawn[:, P:] = np.abs(drawn[:, P:])  # running variances are not negative
    return drawn


def test_updates_are_averaged_by_samples() -> None:
    strategy, grid = make()
    u, n = updates(1), np.array([1, 5, 10])
    samples = n.tolist()
    play(strategy, grid, 1, lambda i, m: reply(m, u[i], samples[i], 1))
    np.testing.assert_allclose(strategy.model.weights.numpy(), (u * n[:, None]).sum(0) / n.sum(), rtol=1e-4, atol=1e-6)
    assert strategy.cohort.tally.metrics["train/loss"] == pytest.approx((n * n).sum() / n.sum())
    assert strategy.cohort.tally.metrics["comm/clients"] == 3


def test_the_order_of_arrival_changes_not_one_bit() -> None:
    results = []
    for order in (1, -1):
        strategy, grid = make()
        u = updates(1)
        messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
        strategy.aggregate_train(1, [reply(m, u[i], 7 + i, 1) for i, m in list(enumerate(messages))[::order]])
        results.append(strategy.model.weights)
    assert torch.equal(*results)


def test_fedavgm_is_momentum_on_the_server() -> None:
    strategy, grid = make(strategy="fedavgm", server_momentum=0.8, server_lr=0.5)
    w, v = np.zeros(P), np.zeros(P)
    for round in (1, 2, 3):
        u = updates(round)
        play(strategy, grid, round, lambda i, m, u=u, round=round: reply(m, u[i], 1, round))
        v = 0.8 * v + u.mean(0)[:P]
        w += 0.5 * v
    np.testing.assert_allclose(strategy.model.weights.numpy()[:P], w, rtol=1e-5)


def test_nesterovs_momentum_on_the_server_is_torchs() -> None:
    strategy, grid = make(strategy="fedavgm", server_momentum=0.8, server_lr=0.5, server_nesterov=True)
    w = torch.zeros(P, requires_grad=True)
    outer = torch.optim.SGD([w], 0.5, momentum=0.8, nesterov=True)
    for round in (1, 2, 3):
        u = updates(round)
        play(strategy, grid, round, lambda i, m, u=u, round=round: reply(m, u[i], 1, round))
        w.grad = -torch.from_numpy(u.mean(0)[:P])
        outer.step()
    np.testing.assert_allclose(strategy.model.weights.numpy()[:P], w.detach().numpy(), rtol=1e-5)


def test_a_server_learning_rate_that_is_not_given_suits_the_strategy() -> None:
    assert [make(strategy=name)[0].model.optimizer.lr for name in ("fedavg", "fedavgm", "fedadam")] == [1.0, 1.0, 0.01]


def test_fedadam_is_the_papers_algorithm_2() -> None:
    strategy, grid = make(strategy="fedadam", server_momentum=0.9, server_beta2=0.99, server_lr=0.1, server_tau=1e-3)
    w, m1, m2 = np.zeros(P), np.zeros(P), np.full(P, 1e-6)
    for round in (1, 2, 3):
        u = updates(round)
        play(strategy, grid, round, lambda i, m, u=u, round=round: reply(m, u[i], 1, round))
        d = u.mean(0)[:P]
        m1, m2 = 0.9 * m1 + 0.1 * d, 0.99 * m2 + 0.01 * d * d
        w += 0.1 * m1 / (np.sqrt(m2) + 1e-3)
    np.testing.assert_allclose(strategy.model.weights.numpy()[:P], w, rtol=1e-4)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_running_statistics_are_averaged_whatever_the_servers_optimizer(name: str) -> None:
    strategy, grid = make(strategy=name)
    for round in (1, 2):
        u = updates(round)
        play(strategy, grid, round, lambda i, m, u=u, round=round: reply(m, u[i], 1, round))
    expected = sum(updates(r).mean(0) for r in (1, 2))[P:]
    np.testing.assert_allclose(strategy.model.weights.numpy()[P:], expected, rtol=1e-5)


def test_a_failed_client_is_left_out_named_and_not_acknowledged() -> None:
    strategy, grid = make()
    u = updates(1)

    def answer(i: int, m: Message) -> Message | None:
        return Message(Error(2, "Traceback\nValueError: broke"), reply_to=m) if i == 1 else reply(m, u[i], 1, 1)

    play(strategy, grid, 1, answer)
    np.testing.assert_allclose(strategy.model.weights.numpy(), u[[0, 2]].mean(0), rtol=1e-6)
    assert strategy.cohort.tally.metrics["comm/failures"] == 1
    assert "client 1" in strategy.cohort.tally.failures[0]
    messages = strategy.configure_train(2, strategy.broadcast(2), ConfigRecord(), grid)
    assert [m.content["task"]["accepted-round"] for m in messages] == [1, 0, 1]


@pytest.mark.parametrize("damage", ["bits", "round", "layout"])
def test_a_payload_that_is_not_this_rounds_is_refused_and_the_round_goes_on(damage: str) -> None:
    strategy, grid = make()
    u = updates(1)

    def answer(i: int, m: Message) -> Message:
        good = reply(m, u[i], 1, 7 if damage == "round" and i == 0 else 1)
        if i == 0 and damage != "round":
            array = good.content["arrays"]["update"]
            data = bytearray(array.data)
            data[-9 if damage == "bits" else 6] ^= 4
            array.data = bytes(data)
        return good

    play(strategy, grid, 1, answer)
    np.testing.assert_allclose(strategy.model.weights.numpy(), u[1:].mean(0), rtol=1e-6)
    assert "its reply is refused" in strategy.cohort.tally.failures[0]


@pytest.mark.parametrize(
    ("metrics", "arrays"),
    [
        (None, True),
        ({}, True),
        ({"num-examples": -1}, True),
        ({"num-examples": 0}, True),
        ({"num-examples": 2**62}, True),
        ({"num-examples": 1.5}, True),
        ({"num-examples": [1, 2]}, True),
        ({"num-examples": 1, "train/loss": float("nan")}, True),
        ({"num-examples": 1, "train/loss": [1.0]}, True),
        ({"num-examples": 1}, False),
    ],
)
def test_a_malformed_reply_is_one_refused_client(metrics: dict | None, arrays: bool) -> None:
    strategy, grid = make()
    u = updates(1)

    def answer(i: int, m: Message) -> Message:
        good = reply(m, u[i], 1, 1)
        if i == 1:
            records = {"arrays": good.content["arrays"]} if arrays else {}
            records |= {} if metrics is None else {"metrics": MetricRecord(metrics)}
            return Message(RecordDict(records), reply_to=m)
        return good

    play(strategy, grid, 1, answer)
    np.testing.assert_allclose(strategy.model.weights.numpy(), u[[0, 2]].mean(0), rtol=1e-5, atol=1e-7)
    assert "its reply is refused" in strategy.cohort.tally.failures[0]


def test_a_client_cannot_write_the_tags_that_the_server_measures() -> None:
    strategy, grid = make()
    u = updates(1)

    def answer(i: int, m: Message) -> Message:
        good = reply(m, u[i], 1, 1)
        good.content["metrics"]["comm/uplink_bytes"] = 1e12
        good.content["metrics"]["evil/tag"] = 1.0
        return good

    play(strategy, grid, 1, answer)
    assert strategy.cohort.tally.metrics["comm/uplink_bytes"] < 1e6
    assert "evil/tag" not in strategy.cohort.tally.metrics


def test_a_missing_reply_is_a_failure() -> None:
    strategy, grid = make()
    u = updates(1)
    play(strategy, grid, 1, lambda i, m: None if i == 2 else reply(m, u[i], 1, 1))
    assert "no reply" in strategy.cohort.tally.failures[0]


def test_a_node_that_the_superlink_lost_fails_with_its_client_and_reason() -> None:
    strategy, grid = make()
    u = updates(1)
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    for i, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = f"id {i}"
    lost = Message(Error(1, "Node Unavailable"), reply_to=messages[1])
    lost.metadata.__dict__["_src_node_id"] = 99  # the SuperLink's own
    strategy.aggregate_train(1, [lost, *(reply(messages[i], u[i], 1, 1) for i in (0, 2))])
    assert strategy.cohort.tally.failures == ["client 1: Node Unavailable"]
    assert strategy.cohort.tally.metrics["comm/clients"] == 2


def test_the_slowest_client_sets_the_simulated_clock_and_the_deadline_drops_it() -> None:
    u = updates(1)
    size = len(UpdateCodec(LAYOUT, "none").encode(u[0], ClientState(), round=1, seed=0)[0])
    links = {"uplink_mbps": "uniform:0.0005:0.01", "seed": 3}
    network = Network(links["uplink_mbps"], "", "", seed=3)
    seconds = sorted((network.seconds(i, downlink=0, uplink=size, compute=1.0), i) for i in range(3))
    between = (seconds[1][0] + seconds[2][0]) / 2
    for deadline, kept, clock in ((0.0, [0, 1, 2], seconds[2][0]), (between, [i for _, i in seconds[:2]], between)):
        strategy, grid = make(compute_seconds=1.0, round_deadline=deadline, **links)
        play(strategy, grid, 1, lambda i, m: reply(m, u[i], 1, 1))
        assert strategy.cohort.tally.metrics["time/simulated"] == pytest.approx(clock)
        np.testing.assert_allclose(strategy.model.weights.numpy(), u[kept].mean(0), rtol=1e-4, atol=1e-6)
        assert len(strategy.cohort.tally.failures) == 3 - len(kept)


def test_a_round_in_which_all_clients_are_late_leaves_the_weights_and_the_run_goes_on() -> None:
    strategy, grid = make(compute_seconds=2.0, round_deadline=1.0)
    before, u = strategy.model.weights.clone(), updates(1)
    play(strategy, grid, 1, lambda i, m: reply(m, u[i], 1, 1))
    assert torch.equal(strategy.model.weights, before)
    assert len(strategy.cohort.tally.failures) == 3
    strategy.model.experiment.config = strategy.config.replace(round_deadline=3.0)
    play(strategy, grid, 2, lambda i, m: reply(m, u[i], 1, 2))
    np.testing.assert_allclose((strategy.model.weights - before).numpy(), u.mean(0), rtol=1e-4, atol=1e-6)


def test_all_clients_failing_ends_the_run_with_the_first_reason() -> None:
    strategy, grid = make()
    with pytest.raises(RunFailed, match=r"all 3 clients failed; client 0: .*ValueError: broke"):
        play(strategy, grid, 1, lambda i, m: Message(Error(2, "ValueError: broke"), reply_to=m))


def test_a_failed_client_is_told_by_its_exception_and_not_by_the_last_line_of_its_message() -> None:
    strategy, grid = make()
    told = "Traceback (most recent call last):\n  File 'x'\nmy.OddError: it broke\n  indented\nan advice\n"
    with pytest.raises(RunFailed, match=r"client 0: OddError: it broke$"):
        play(strategy, grid, 1, lambda i, m: Message(Error(2, told), reply_to=m))


def test_global_weights_that_diverged_end_the_run() -> None:
    strategy, _ = make()
    strategy.model.weights[2] = float("nan")
    with pytest.raises(RunFailed, match="global weights diverged"):
        strategy.broadcast(2)


def test_cohorts_follow_from_the_seed_and_cover_the_federation() -> None:
    def cohorts(seed: int) -> list[list[int]]:
        strategy, grid = make(clients=3, clients_per_round=1, seed=seed)
        rounds = range(1, 30)
        return [
            [m.metadata.dst_node_id for m in strategy.configure_train(r, ArrayRecord(), ConfigRecord(), grid)]
            for r in rounds
        ]

    assert cohorts(1) == cohorts(1) != cohorts(2)
    assert {c for (c,) in cohorts(1)} == {0, 1, 2}
