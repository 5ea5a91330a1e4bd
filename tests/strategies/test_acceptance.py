"""What one hostile client can do to a round: nothing, except that its own turn is lost."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord

from fedsparse.engine import LocalGrid
from fedsparse.errors import Diverged, RunFailed, reason
from fedsparse.strategies.acceptance import TIMES
from fedsparse.strategies.fedavg import FedAvg
from tests.strategies.test_fedavg import N, P, make, play, reply, updates

VICTIM = 1


def round_with(strategy: FedAvg, grid: object, round: int, change: Callable[[np.ndarray, Message], Message]) -> None:
    """A round in which ``change`` makes client 1's reply from its honest update and its message."""
    u = updates(round)
    play(strategy, grid, round, lambda i, m: change(u[i], m) if i == VICTIM else reply(m, u[i], 1, round))


def assert_left_out(strategy: FedAvg, kind: str, words: str) -> None:
    """Client 1 alone was refused, is named, and counts nowhere in the first round."""
    (failure,) = strategy.cohort.tally.failures
    assert failure.startswith("client 1: its reply is refused: ")
    assert words in failure
    assert len(failure) < 350
    assert strategy.cohort.tally.metrics[f"refused/{kind}"] == 1
    assert strategy.cohort.tally.metrics["comm/clients"] == 2
    np.testing.assert_allclose(strategy.model.weights.numpy(), updates(1)[[0, 2]].mean(0), rtol=1e-5, atol=1e-7)


def refuse(kind: str, words: str, change: Callable[[np.ndarray, Message], Message], **settings: object) -> None:
    strategy, grid = make(**settings)
    round_with(strategy, grid, 1, change)
    assert_left_out(strategy, kind, words)


def one_value(value: float, at: int = 0) -> Callable[[np.ndarray, Message], Message]:
    def change(update: np.ndarray, message: Message) -> Message:
        update = update.copy()
        update[at] = value
        return reply(message, update, 1, 1)

    return change


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("round", [1, 2])
@pytest.mark.parametrize("value", [3e38, -3e38, 1e30, 1e4])
def test_one_finite_value_that_is_far_too_large_ends_and_changes_nothing(value: float, round: int) -> None:
    strategy, grid = make()
    if round == 2:
        play(strategy, grid, 1, lambda i, m: reply(m, updates(1)[i], 1, 1))
    before = strategy.model.weights.clone()
    honest = updates(round)

    def answer(i: int, m: Message) -> Message:
        return reply(m, np.full(N, value) if i == VICTIM else honest[i], 1, round)

    play(strategy, grid, round, answer)
    assert strategy.cohort.tally.metrics["refused/norm"] == 1
    np.testing.assert_allclose((strategy.model.weights - before).numpy(), honest[[0, 2]].mean(0), rtol=1e-4, atol=1e-5)


def test_a_large_value_among_the_buffers_is_refused_like_one_among_the_weights() -> None:
    refuse("norm", "the norm of its buffers is 1e+20", one_value(1e20, at=P))


def test_a_running_variance_that_would_be_negative_is_refused() -> None:
    refuse("variance", "running_var would be -2", one_value(-2.0, at=N - 1))


def test_updates_that_all_grow_together_are_training_and_no_attack() -> None:
    strategy, grid = make()
    for round, scale in ((1, 1.0), (2, 100.0)):
        play(strategy, grid, round, lambda i, m, s=scale, r=round: reply(m, s * updates(r)[i], 1, r))
        assert strategy.cohort.tally.failures == []


def test_an_update_just_below_the_limit_is_accepted_and_the_limit_is_a_multiple_of_the_median() -> None:
    norms = np.sort(np.linalg.norm(updates(1)[:, :P], axis=1))
    for factor, accepted in ((0.99, True), (1.01, False)):
        strategy, grid = make()
        play(strategy, grid, 1, lambda i, m: reply(m, updates(1)[i], 1, 1))
        second = updates(2)
        second[:, :P] *= norms[1] / np.linalg.norm(second[:, :P], axis=1, keepdims=True)
        second[VICTIM, :P] *= factor * TIMES
        play(strategy, grid, 2, lambda i, m, u=second: reply(m, u[i], 1, 2))
        failures = strategy.cohort.tally.failures
        assert failures == [] if accepted else "norm of its weights" in failures[0]


def test_a_limit_of_the_users_own_and_no_limit() -> None:
    norms = np.linalg.norm(updates(1)[:, :P], axis=1)
    strategy, grid = make(max_update_norm=float(np.sort(norms)[1]) + 1e-3)
    play(strategy, grid, 1, lambda i, m: reply(m, updates(1)[i], 1, 1))
    assert [f.partition(":")[0] for f in strategy.cohort.tally.failures] == [f"client {norms.argmax()}"]
    strategy, grid = make(max_update_norm="off")
    round_with(strategy, grid, 1, one_value(1e30))
    assert strategy.cohort.tally.failures == []


@pytest.mark.filterwarnings("error")
def test_without_a_limit_a_mean_that_overflows_keeps_the_last_weights_and_names_the_client() -> None:
    strategy, grid = make(max_update_norm="off")
    with pytest.raises(Diverged, match=r"round 1: the mean update is not finite; the longest update is client 1's"):
        play(strategy, grid, 1, lambda i, m: reply(m, np.full(N, 3e38) if i == VICTIM else updates(1)[i], 9, 1))
    assert torch.equal(strategy.model.weights, torch.zeros(N))


@pytest.mark.parametrize("value", [1e300, 1e308, -1.0])
def test_seconds_out_of_range_never_reach_the_simulated_clock(value: float) -> None:
    def change(update: np.ndarray, message: Message) -> Message:
        answer = reply(message, update, 1, 1)
        answer.content["metrics"]["time/forward"] = value
        return answer

    refuse("metrics", "time/forward = ", change, uplink_mbps="1")


def test_more_samples_than_a_client_has_are_refused() -> None:
    most = int(make()[0].cohort.model.gate.experiment.partition.sizes[VICTIM])
    refuse("samples", f"num-examples = {most + 1}", lambda u, m: reply(m, u, most + 1, 1))


def test_another_clients_payload_of_the_same_round_is_refused() -> None:
    def change(update: np.ndarray, message: Message) -> Message:
        mine = message.metadata.__dict__
        node, mine["_dst_node_id"] = mine["_dst_node_id"], 0  # the payload is bound to client 0
        answer = reply(message, updates(1)[0], 1, 1)
        mine["_dst_node_id"] = answer.metadata.__dict__["_src_node_id"] = node
        return answer

    refuse("payload", "another client's", change)


def test_a_masked_update_is_refused_without_secure_aggregation() -> None:
    def change(update: np.ndarray, message: Message) -> Message:
        answer = reply(message, update, 1, 1)
        answer.content["arrays"]["masked"] = Array("uint8", (1,), "fedsparse/1", b"0")
        return answer

    refuse("payload", "a masked update that the server did not ask for", change)


@pytest.mark.parametrize("where", ["a record", "an array", "a long array", "many metrics"])
def test_content_that_no_message_asks_for_is_refused_before_it_is_decoded(where: str) -> None:
    big = Array("float32", (1,), "fedsparse/1", bytes(10**6))

    def change(update: np.ndarray, message: Message) -> Message:
        answer = reply(message, update, 1, 1)
        match where:
            case "a record":
                answer.content["\x1b[31mextra"] = ArrayRecord({"big": big})
            case "an array":
                answer.content["arrays"]["big"] = big
            case "a long array":
                answer.content["arrays"]["update"] = big
            case "many metrics":
                answer.content["metrics"] = MetricRecord({f"m{i}": 1.0 for i in range(1000)})
        return answer

    refuse("content", "its" if "a long" in where or "many" in where else "that no message asks for", change)


def test_the_first_of_a_clients_two_replies_counts() -> None:
    strategy, grid = make()
    u = updates(1)
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    replies = [reply(m, u[i], 1, 1) for i, m in enumerate(messages)]
    strategy.aggregate_train(1, [*replies, reply(messages[VICTIM], 5 * u[VICTIM], 1, 1)])
    np.testing.assert_allclose(strategy.model.weights.numpy(), u.mean(0), rtol=1e-5, atol=1e-7)
    assert strategy.cohort.tally.metrics["refused/twice"] == 1
    assert strategy.cohort.tally.failures == []


def test_a_refused_client_is_not_acknowledged() -> None:
    strategy, grid = make()
    round_with(strategy, grid, 1, one_value(3e38))
    messages = strategy.configure_train(2, strategy.broadcast(2), ConfigRecord(), grid)
    assert [m.content["task"]["accepted-round"] for m in messages] == [1, 0, 1]


class Answering(LocalGrid):
    """A grid whose clients answer as told."""

    def __init__(self, answer: Callable[[int, Message], Message]) -> None:
        super().__init__("tests.fedsparse.engine.obedient:app", clients=6)
        self.answer, self.asked = answer, []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        messages = list(messages)
        self.asked.append([m.metadata.dst_node_id for m in messages])
        return [self.answer(m.metadata.dst_node_id, m) for m in messages]


def test_a_round_with_too_few_replies_goes_on_with_other_clients_and_counts_each_update_once() -> None:
    strategy, grid = make(clients=6, clients_per_round=3, min_replies=3)
    strategy.cohort.nodes.ids = range(6)
    u = np.abs(np.random.default_rng(0).normal(size=(6, N))).astype(np.float32)
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    first = [m.metadata.dst_node_id for m in messages]
    strategy._grid = second = Answering(lambda i, m: reply(m, u[i], 1, 1))
    good, *others = messages
    bad = [reply(m, np.full(N, 3e38), 1, 1) for m in others]
    for message in bad:
        message.content["metrics"]["num-examples"] = 0
    strategy.aggregate_train(1, [reply(good, u[first[0]], 1, 1), *bad])
    (again,) = second.asked
    assert len(set(first) | set(again)) == 6
    counted = [first[0], *again]
    np.testing.assert_allclose(strategy.model.weights.numpy(), u[counted].mean(0), rtol=1e-5)
    assert strategy.cohort.tally.metrics["comm/clients"] == 4
    assert strategy.cohort.tally.metrics["comm/messages"] == 6


def test_after_three_cohorts_with_too_few_replies_the_run_ends_with_the_first_reason() -> None:
    strategy, grid = make(min_replies=3)
    strategy._grid = grid = Answering(lambda i, m: reply(m, updates(1)[i], 0, 1))
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    replies = [reply(m, updates(1)[i], int(i > 0), 1) for i, m in enumerate(messages)]
    with pytest.raises(RunFailed, match=r"only 2 of 3 clients sent a usable update, and min-replies = 3; client 0: "):
        strategy.aggregate_train(1, replies)
    assert grid.asked == [[0], [0]]
    assert torch.equal(strategy.model.weights, torch.zeros(N))


def test_no_text_of_a_client_takes_long_or_reaches_a_terminal_raw() -> None:
    for part in ("x", "(pid=", "\x1b[31m", "a.\n", "a.b", "Traceback (most recent call last):\n"):
        told = reason(part * (10**6 // len(part)))
        assert len(told) < 1400
        assert told.isprintable()


def test_a_list_of_a_million_numbers_is_one_short_line() -> None:
    def change(update: np.ndarray, message: Message) -> Message:
        answer = reply(message, update, 1, 1)
        answer.content["metrics"]["train/loss"] = [1.0] * 10**6
        return answer

    refuse("metrics", "train/loss = a list of 1000000 numbers", change)
