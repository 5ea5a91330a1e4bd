"""One client's reply that differs from the other ones in its form is refused, and the round goes on without it."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAdam, FedAvg, Strategy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.flower import CompressedStrategy, CompressMod, RobustFedAvg
from tests.fedsparse.flower.federation import SIZE, client_app, play

Forge = Callable[[RecordDict], Any]
START = {"w": np.zeros(SIZE, np.float32), "n": np.zeros(3, np.int64)}


def renamed(content: RecordDict) -> None:
    content["weights"] = content.pop("arrays")


def resized(content: RecordDict) -> None:
    """Dense, and such that NumPy could stretch it to the shape of the other ones."""
    content["arrays"] = ArrayRecord({"w": Array(np.ones(1, np.float32)), "n": Array(np.zeros(3, np.int64))})


def put(name: str, record: ArrayRecord | MetricRecord | ConfigRecord) -> Forge:
    return lambda content: content.update({name: record})


def arrays(w: object, n: object = 0) -> Forge:
    """Dense arrays of the right shapes, full of these numbers."""
    return put("arrays", ArrayRecord({"w": Array(np.full(SIZE, w)), "n": Array(np.full(3, n))}))


ODD: dict[str, Forge] = {
    "an empty ArrayRecord beside it": put("more", ArrayRecord()),
    "another ArrayRecord beside it": put("more", ArrayRecord({"w": Array(np.ones(SIZE, np.float32))})),
    "an empty ArrayRecord": put("arrays", ArrayRecord()),
    "no ArrayRecord": lambda content: content.pop("arrays"),
    "an ArrayRecord of another name": renamed,
    "other arrays": put("arrays", ArrayRecord({"v": Array(np.ones(SIZE, np.float32))})),
    "another shape": resized,
    "no numbers": put("arrays", ArrayRecord({key: Array("float32", (SIZE,), "numpy.ndarray", b"x") for key in START})),
    "texts": arrays("x"),
    "NaN": arrays(np.nan),
    "infinity": arrays(-np.inf),
    "a number beyond the dtype that was sent": arrays(1e300),
    "NaN in the place of a whole number": arrays(1.0, np.nan),
    "no metrics": lambda content: content.pop("metrics"),
    "another MetricRecord beside it": put("m", MetricRecord({"num-examples": 1, "loss": 1.0})),
    "no weight": put("metrics", MetricRecord({"loss": 1.0})),
    "a list of weights": put("metrics", MetricRecord({"num-examples": [1], "loss": 1.0})),
    "a negative weight": put("metrics", MetricRecord({"num-examples": -1, "loss": 1.0})),
    "a weight that is no number": put("metrics", MetricRecord({"num-examples": float("nan"), "loss": 1.0})),
    "an infinite weight": put("metrics", MetricRecord({"num-examples": float("inf"), "loss": 1.0})),
}


def by_node_0(forge: Forge) -> Callable[[list[Message]], list[Message]]:
    """A network in which node 0 forges its training reply, which comes first."""

    def between(replies: list[Message]) -> list[Message]:
        replies = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        if replies and "arrays" in replies[0].content:
            forge(replies[0].content)
        return replies

    return between


def without_node_0(replies: list[Message]) -> list[Message]:
    return [reply for reply in replies if reply.metadata.src_node_id]


def plain(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A client without CompressMod, whose app expects one ConfigRecord."""
    message.content.pop("fedsparse", None)
    return call_next(message, context)


EXACT = CompressMod("none", values="f32")


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "fedsparse" and r.levelno == logging.WARNING]


@pytest.mark.parametrize("mod", [plain, EXACT], ids=["dense", "compressed"])
@pytest.mark.parametrize("forge", ODD.values(), ids=ODD)
def test_an_odd_reply_becomes_an_error_reply_with_one_line_and_the_others_are_averaged(
    forge: Forge, mod: Callable[..., Message], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flwr")
    result, _ = play(CompressedStrategy(FedAvg()), client_app(mod), START, rounds=2, between=by_node_0(forge))
    honest, _ = play(FedAvg(), client_app(), START, rounds=2, between=without_node_0)
    assert len(refused(caplog)) == 2
    assert all(line.startswith("the reply of node 0 is refused: ") for line in refused(caplog))
    assert caplog.text.count("Received 3 results and 1 failures") == 2
    np.testing.assert_allclose(result.arrays["w"].numpy(), honest.arrays["w"].numpy(), atol=1e-6)


@pytest.mark.parametrize("forge", [*ODD.values(), put("metrics", MetricRecord({"num-examples": 0, "loss": 1.0}))])
@pytest.mark.parametrize("nodes", [1, 2])
def test_an_odd_reply_ends_no_run_where_no_majority_shows_that_it_is_odd(forge: Forge, nodes: int) -> None:
    few = {f"min_{kind}_nodes": 1 for kind in ("train", "evaluate", "available")}
    for mod in (plain, EXACT):
        strategy = CompressedStrategy(FedAvg(**few))
        result, _ = play(strategy, client_app(mod), START, rounds=1, nodes=nodes, between=by_node_0(forge))
        shapes = {key: array.numpy().shape for key, array in result.arrays.items()}
        assert shapes == {key: array.shape for key, array in START.items()} or (nodes == 1 and not shapes)


@pytest.mark.parametrize("strategy", [FedAvg, RobustFedAvg])
def test_bytes_of_another_length_are_refused_where_they_are_no_trees(
    strategy: type[FedAvg], caplog: pytest.LogCaptureFixture
) -> None:
    start = {**START, "bytes": np.zeros(5, np.uint8)}
    w, n = Array(np.ones(SIZE, np.float32)), Array(np.zeros(3, np.int64))
    longer = put("arrays", ArrayRecord({"w": w, "n": n, "bytes": Array(np.zeros(7, np.uint8))}))
    wrapped = CompressedStrategy(strategy())
    result, _ = play(wrapped, client_app(EXACT), start, rounds=1, between=by_node_0(longer))
    assert len(refused(caplog)) == 1
    assert result.arrays["bytes"].numpy().tolist() == [1] * 5


@given(
    forges=st.lists(st.sampled_from(sorted(ODD)), min_size=1, max_size=4), wrapped=st.booleans(), is_small=st.booleans()
)
@settings(max_examples=25, deadline=None)
def test_after_any_combination_of_forgeries_the_result_is_that_of_the_honest_clients(
    forges: list[str], wrapped: bool, is_small: bool
) -> None:
    class Own(FedAdam):
        """A user's strategy, with a method around Flower's."""

        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            return super().aggregate_train(server_round, replies)

    def all_of(content: RecordDict) -> None:
        for name in forges:
            with suppress(KeyError):  # the record has been taken out before
                ODD[name](content)

    def after(between: Callable[[list[Message]], list[Message]]) -> ArrayRecord:
        inner: Strategy = Own(fraction_evaluate=0.0)
        if wrapped:
            inner = DifferentialPrivacyServerSideFixedClipping(inner, 0, 0.5, num_sampled_clients=4)
        app = client_app(CompressMod("topk", density=0.1) if is_small else plain)
        return play(CompressedStrategy(inner), app, START, rounds=1, between=between)[0].arrays

    result = after(by_node_0(all_of))
    if wrapped:  # Flower's strategies of differential privacy make nothing of a round in which a client failed
        assert not result
    else:
        honest = after(without_node_0)
        np.testing.assert_allclose(result["w"].numpy(), honest["w"].numpy(), atol=1e-7)


def test_of_two_replies_the_one_with_the_arrays_of_the_message_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    forge = by_node_0(put("more", ArrayRecord({"x": Array(np.ones(3))})))
    result, _ = play(CompressedStrategy(FedAvg()), client_app(EXACT), nodes=2, rounds=1, between=forge)
    assert len(refused(caplog)) == 1
    assert np.abs(result.arrays["w"].numpy()).max() < 1


def test_an_odd_reply_to_an_evaluation_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def between(replies: list[Message]) -> list[Message]:
        if "arrays" not in replies[0].content:
            replies[0].content["metrics"] = MetricRecord({"accuracy": 1.0})
        return replies

    result, _ = play(CompressedStrategy(FedAvg()), client_app(CompressMod("eden")), rounds=1, between=between)
    assert len(refused(caplog)) == 1
    assert result.evaluate_metrics_clientapp[1]["loss"] == 1.0


def test_a_strategy_that_averages_different_replies_itself_gets_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    """As where each client sends a prototype for each class that it has."""

    class Prototypes(FedAvg):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            self.found = sorted({key for reply in replies for key in reply.content["arrays"]})
            return None, None

    def train(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
        return {str(node): np.ones(node + 1)}

    strategy = CompressedStrategy(Prototypes())
    play(strategy, client_app(CompressMod("eden"), train=train), rounds=1)
    assert strategy.found == ["0", "1", "2", "3"]
    assert "refused" not in caplog.text
