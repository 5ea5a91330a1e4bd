"""RobustFedAvg: aggregators against hostile clients, for apps whose replies may be sparse."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg

from fedsparse.catalogue import AGGREGATORS
from fedsparse.errors import ConfigError
from fedsparse.flower import CompressedStrategy, CompressMod, RobustFedAvg
from tests.fedsparse.flower.federation import SIZE, client_app, play

START = {
    "w": np.zeros((SIZE, 2), np.float32),
    "b": np.zeros(9),
    "running_var": np.ones(4, np.float32),
    "n": np.array(3),
}


def hostile(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
    """Steps towards 1, of which each client takes those of its own coordinates first; one client of five lies."""
    rng = np.random.default_rng((node, round))
    factor = -1000 if node == 4 else 1
    steps = {key: factor * (1 - array) * rng.random(array.shape) for key, array in arrays.items()}
    return {key: (array + steps[key]).astype(array.dtype) for key, array in arrays.items()}


@pytest.mark.parametrize("aggregator", ["median", "trimmed-mean", "norm-clip", "krum", "multi-krum"])
def test_sparse_replies_of_which_one_is_hostile_lead_to_the_goal(aggregator: str) -> None:
    app = client_app(CompressMod("topk", density=0.3), train=hostile)
    strategy = CompressedStrategy(RobustFedAvg(aggregator, fraction_evaluate=0.0))
    result, _ = play(strategy, app, START, rounds=12, nodes=5)
    ruined, _ = play(CompressedStrategy(FedAvg(fraction_evaluate=0.0)), app, START, rounds=12, nodes=5)
    assert np.abs(result.arrays["w"].numpy() - 1).mean() < 0.5
    assert np.abs(ruined.arrays["w"].numpy() - 1).mean() > 10
    assert {key: (a.dtype, a.numpy().shape) for key, a in result.arrays.items()} == {
        key: (str(array.dtype), array.shape) for key, array in START.items()
    }


def claiming(replies: list[Message]) -> list[Message]:
    """A network in which node 4 claims a billion examples."""
    for reply in replies:
        if reply.metadata.src_node_id == 4:
            reply.content["metrics"] = MetricRecord({"num-examples": 10**9, "loss": 1.0})
    return replies


def without_numbers(replies: list[Message]) -> list[Message]:
    """A network in which node 3's dense reply has no number, and node 4's the largest ones."""
    for reply in replies:
        if (node := reply.metadata.src_node_id) in (3, 4) and "arrays" in reply.content:
            value = np.nan if node == 3 else 1.7e308
            reply.content["arrays"] = ArrayRecord({key: Array(np.full(a.shape, value)) for key, a in DOUBLE.items()})
    return replies


DOUBLE = {"w": np.zeros((SIZE, 2)), "running_var": np.ones(4)}


@pytest.mark.parametrize("aggregator", sorted(AGGREGATORS.keys() - {"mean"}))
@pytest.mark.parametrize("between", [claiming, without_numbers])
def test_a_hostile_client_gains_nothing_by_what_it_claims_or_by_numbers_that_are_none(
    aggregator: str, between: Callable[[list[Message]], list[Message]]
) -> None:
    app = client_app(CompressMod("topk", density=0.3), train=hostile)
    strategy = CompressedStrategy(RobustFedAvg(aggregator, fraction_evaluate=0.0))
    result, _ = play(strategy, app, DOUBLE, rounds=6, nodes=7, between=between)
    assert np.abs(result.arrays["w"].numpy() - 1).mean() < 0.5


@pytest.mark.parametrize(
    ("aggregator", "flowers"),
    [
        ("mean", FedAvg(weighted_by_key="loss")),  # which is the same of all clients
        ("median", FedMedian()),
        ("trimmed-mean", FedTrimmedAvg(beta=0.2)),
    ],
)
@pytest.mark.parametrize("kind", ["dense", "compressed", "partly dense"])
def test_of_whole_replies_it_makes_what_flowers_own_strategies_make(
    aggregator: str, flowers: FedAvg, kind: str
) -> None:
    exact = CompressMod("none", values="f32", dense=["b"] if kind == "partly dense" else [])

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if kind != "dense":
            return exact(message, context, call_next)
        message.content.pop("fedsparse", None)
        return call_next(message, context)

    strategy = RobustFedAvg(aggregator, byzantine=0.2, weighted_by_key="loss")
    ours, _ = play(CompressedStrategy(strategy), client_app(mod), START, nodes=5)
    theirs, _ = play(flowers, client_app(), START, nodes=5)
    for key in ("w", "b"):
        np.testing.assert_allclose(ours.arrays[key].numpy(), theirs.arrays[key].numpy(), atol=1e-6)


def test_arrays_that_travel_dense_do_not_make_zeros_of_what_was_not_sent() -> None:
    """A median over such zeros would be zero."""

    def train(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
        step = np.zeros(SIZE)
        step[node::4] = 1
        return {"v": arrays["v"] + 1, "w": arrays["w"] + step}

    start = {"v": np.zeros(5), "w": np.zeros(SIZE)}
    mod = CompressMod("topk", density=0.25, dense=["v"])
    strategy = CompressedStrategy(RobustFedAvg("median", byzantine=0.0))
    result, _ = play(strategy, client_app(mod, train=train), start, rounds=1)
    assert (result.arrays["v"].numpy() == 1).all()
    np.testing.assert_allclose(result.arrays["w"].numpy(), 0.25, atol=1e-6)


def test_a_wrong_argument_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^aggregator = medium: should be one of mean, median, .*$"):
        RobustFedAvg("medium")
    with pytest.raises(ConfigError, match=r"^byzantine = 0\.5: should be from 0 to below 0\.5$"):
        RobustFedAvg(byzantine=0.5)


def test_clients_that_answer_with_other_arrays_are_one_line() -> None:
    app = client_app(CompressMod("eden"), train=lambda arrays, node, round: {"v": arrays["w"]})
    with pytest.raises(ConfigError, match=r"^RobustFedAvg: the replies have no array 'w' of the shape that was sent$"):
        play(CompressedStrategy(RobustFedAvg()), app)
