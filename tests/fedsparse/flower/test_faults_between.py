"""Replies that are lost, late, repeated, forged, or dropped by a strategy: nothing of an update is lost or doubled."""

import random
from collections import defaultdict

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg, MultiKrum
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.flower import CompressedStrategy, CompressMod
from tests.fedsparse.flower.federation import SIZE, client_app, drift, play

NODES, ROUNDS = 4, 7


class Notes(FedAvg):
    """FedAvg that notes what each node's accepted replies changed.

    It makes no use of some rounds' replies, and leaves the replies of some nodes out but for the last round.
    """

    def __init__(self, unused: set[int], left_out: set[int]) -> None:
        super().__init__(min_available_nodes=NODES, fraction_evaluate=0)
        self.unused, self.left_out, self.changes = unused, left_out, defaultdict(lambda: np.zeros(SIZE))

    def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
        self.before = arrays["w"].numpy()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
        if server_round in self.unused:
            return None, None
        left_out = self.left_out if server_round < ROUNDS else ()
        replies = [reply for reply in replies if reply.metadata.src_node_id not in left_out]
        for reply in replies:
            if reply.has_content():
                change = reply.content["arrays"]["w"].numpy() - self.before.astype(np.float64)
                self.changes[reply.metadata.src_node_id] += change
        return super().aggregate_train(server_round, replies)


@given(
    seed=st.integers(0, 10**6),
    unused=st.sets(st.integers(1, 6)),
    left_out=st.sets(st.integers(0, NODES - 1), max_size=2),
    state=st.sampled_from(["context", "files"]),
)
@settings(max_examples=15, deadline=None)
def test_what_was_accepted_and_what_clients_kept_are_all_their_updates(
    seed: int, unused: set[int], left_out: set[int], state: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance, late = random.Random(seed), list[Message]()
    trained: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(SIZE))
    folder = tmp_path_factory.mktemp("state") if state == "files" else None
    parts = {"values": "f32", "residual_decay": 1, "state_folder": folder}
    usual, whole = CompressMod("topk", density=0.05, **parts), CompressMod("topk", density=1.0, **parts)

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        is_last = message.content["config"]["server-round"] == ROUNDS
        return (whole if is_last else usual)(message, context, call_next)

    def train(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
        new = drift(arrays, node, round)
        trained[node] += new["w"].astype(np.float64) - arrays["w"]
        return new

    def faulty(replies: list[Message]) -> list[Message]:
        if not replies:  # of the evaluation
            return []
        arrived = list(late)
        late.clear()
        rounds.append(len(replies))
        is_last = len(rounds) == ROUNDS
        for reply in replies:
            fate = "arrives" if is_last else chance.choice(["arrives", "arrives", "lost", "late", "twice"])
            arrived += [copy_of(reply) for _ in range({"arrives": 1, "twice": 2}.get(fate, 0))]
            late.extend([reply] * (fate == "late"))
        return arrived

    rounds = list[int]()
    strategy = Notes(unused, left_out)
    play(CompressedStrategy(strategy), client_app(mod, train=train), rounds=ROUNDS, nodes=NODES, between=faulty)
    for node, sum_of_updates in trained.items():
        np.testing.assert_allclose(strategy.changes[node], sum_of_updates, atol=1e-5)


def copy_of(reply: Message) -> Message:
    """The same reply once more, as it came."""
    again = Message(reply.content.copy(), reply_to=reply)
    again.metadata.__dict__.update(reply.metadata.__dict__)
    return again


def test_a_reply_that_is_read_after_its_round_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Buffered(FedAvg):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            before, self.kept = getattr(self, "kept", []), list(replies)
            return super().aggregate_train(server_round, before)

    play(CompressedStrategy(Buffered()), client_app(CompressMod("topk", density=0.1)), rounds=2)
    assert caplog.text.count("a reply is read after its round") == NODES


def test_a_strategy_that_answers_with_one_clients_very_arrays_has_read_them(caplog: pytest.LogCaptureFixture) -> None:
    """As Flower's FedXgbCyclic does."""

    class Cyclic(FedAvg):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            first = min(replies, key=lambda reply: reply.metadata.src_node_id)
            return first.content["arrays"], None

    mod = CompressMod("topk", density=1.0, values="f32")
    result, _ = play(CompressedStrategy(Cyclic()), client_app(mod), rounds=2)
    expected = drift(drift({"w": np.zeros(SIZE, np.float32)}, 0, 1), 0, 2)["w"]
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected, atol=1e-6)
    assert "read after its round" not in caplog.text


def test_what_a_rule_compared_and_did_not_choose_is_not_sent_again() -> None:
    """Sent again with each next update, it would be longer each time, and never chosen."""
    lengths = list[float]()

    class Chooses(MultiKrum):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            replies = list(replies)
            sent = next(reply for reply in replies if reply.metadata.src_node_id == far)
            lengths.append(float(np.abs(sent.content["arrays"]["w"].numpy() - start).sum()))
            return super().aggregate_train(server_round, replies)

    def train(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
        return {"w": start + (1.0 if node == far else 0.01) * drift({"w": start}, node, round)["w"]}

    start, far = np.zeros(SIZE, np.float32), NODES - 1
    wrapped = CompressedStrategy(Chooses(num_malicious_nodes=1, num_nodes_to_select=2), every_coordinate=True)
    play(wrapped, client_app(CompressMod("none", values="int2", error_feedback=True), train=train), rounds=6)
    assert max(lengths) < 1.5 * min(lengths)
