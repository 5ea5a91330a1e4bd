"""Arrays of every kind: what is compressed, what travels as it is, and with which dtype it comes back."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedXgbBagging
from torch import nn

from fedsparse.flower import CompressedStrategy, CompressMod
from tests.fedsparse.flower.federation import SIZE, Network, client_app, play, wire

SENT = "fedsparse/1"


Wire = list[dict[str, tuple[str, str]]]


def into(found: Wire) -> Callable[[list[Message]], list[Message]]:
    """A network that notes what is in the replies."""

    def between(replies: list[Message]) -> list[Message]:
        found.extend(wire(replies))
        return replies

    return between


def test_of_a_model_with_batchnorm_the_weights_travel_in_the_payload_and_every_dtype_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 50), nn.BatchNorm1d(50), nn.Linear(50, 2)).state_dict()
    found: Wire = []
    arrays = {name: tensor.numpy() for name, tensor in model.items()}
    exact = CompressMod("none", values="f32")
    result, _ = play(CompressedStrategy(FedAvg()), client_app(exact), arrays, between=into(found))
    plain, _ = play(CompressedStrategy(FedAvg()), client_app(), arrays)
    assert set(found[0]) == {"fedsparse/payload", "1.num_batches_tracked"}
    assert {k: a.dtype for k, a in result.arrays.items()} == {k: str(a.dtype) for k, a in arrays.items()}
    assert list(result.arrays) == list(arrays)
    assert result.arrays["1.num_batches_tracked"].numpy() == 3
    for name, array in plain.arrays.items():
        np.testing.assert_allclose(result.arrays[name].numpy(), array.numpy(), atol=1e-6)


def test_running_statistics_arrive_whole_where_weights_are_sparse() -> None:
    arrays = {"w": np.zeros(SIZE, np.float32), "bn.running_var": np.ones(50, np.float32)}
    result, _ = play(CompressedStrategy(FedAvg()), client_app(CompressMod("topk", density=0.01)), arrays, rounds=1)
    assert np.count_nonzero(result.arrays["w"].numpy()) <= 4 * 10
    assert (result.arrays["bn.running_var"].numpy() != 1).all()


def test_named_arrays_travel_as_they_are() -> None:
    arrays = {"w": np.zeros(SIZE, np.float32), "head.scale": np.ones(50, np.float32)}
    found: Wire = []
    mod = CompressMod("topk", density=0.01, dense="head.*")
    play(CompressedStrategy(FedAvg()), client_app(mod), arrays, rounds=1, between=into(found))
    assert found[0] == {"fedsparse/payload": (SENT, "float32"), "head.scale": ("numpy.ndarray", "float32")}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_of_every_width_come_back_as_they_were_sent(dtype: str) -> None:
    start = {"w": np.linspace(-1, 1, SIZE).astype(dtype), "empty": np.zeros((0, 3), dtype), "one": np.array(2, dtype)}
    result, _ = play(CompressedStrategy(FedAvg()), client_app(CompressMod("none", values="f32")), start)
    plain, _ = play(FedAvg(), client_app(), start)
    for name in start:
        assert result.arrays[name].dtype == dtype
        assert result.arrays[name].numpy().shape == start[name].shape
        np.testing.assert_allclose(result.arrays[name].numpy(), plain.arrays[name].numpy(), rtol=2e-3, atol=1e-6)


def bfloat16(values: np.ndarray) -> Array:
    """As JAX's apps write it: ``np.save`` knows bfloat16 as two bytes without a meaning."""
    stream = BytesIO()
    np.save(stream, (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view("V2"))
    return Array("bfloat16", values.shape, "numpy.ndarray", stream.getvalue())


@pytest.mark.parametrize("dense", ["", "w"])
def test_bfloat16_which_flowers_own_fedavg_cannot_average_works(dense: str) -> None:
    app = ClientApp(mods=[CompressMod("none", values="f32", dense=dense)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        bits = message.content["arrays"]["w"].numpy().view(np.uint16).astype(np.uint32) << 16
        record = ArrayRecord({"w": bfloat16(bits.view(np.float32) + context.node_id), "b": bfloat16(np.zeros(1))})
        return Message(RecordDict({"a": record, "m": MetricRecord({"num-examples": 1})}), reply_to=message)

    strategy = CompressedStrategy(FedAvg(fraction_evaluate=0))
    start = ArrayRecord({"w": bfloat16(np.zeros(64)), "b": bfloat16(np.zeros(1))})
    result = strategy.start(Network(app, 3, lambda r: r), start, num_rounds=2)
    assert result.arrays["w"].dtype == "bfloat16"
    assert np.array_equal(
        result.arrays["w"].numpy().view(np.uint16), bfloat16(np.full(64, 2.0)).numpy().view(np.uint16)
    )


def test_an_array_with_infinity_travels_as_it_is() -> None:
    """As a causal mask that a model keeps among its buffers."""
    arrays = {"w": np.zeros(SIZE, np.float32), "mask": np.full(8, -np.inf, np.float32)}
    result, _ = play(CompressedStrategy(FedAvg()), client_app(CompressMod("topk", density=0.01)), arrays, rounds=2)
    assert (result.arrays["mask"].numpy() == -np.inf).all()


def test_columns_first_arrays_keep_their_places() -> None:
    start = {"w": np.asfortranarray(np.arange(600.0, dtype=np.float32).reshape(20, 30))}
    result, _ = play(CompressedStrategy(FedAvg()), client_app(CompressMod("none", values="f32")), start, rounds=1)
    plain, _ = play(FedAvg(), client_app(), start, rounds=1)
    np.testing.assert_allclose(result.arrays["w"].numpy(), plain.arrays["w"].numpy(), atol=1e-4)


class TwoRecords(FedAvg):
    """A strategy with a second ArrayRecord in its messages, which it averages too."""

    def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
        self.control = getattr(self, "control", ArrayRecord({"w": Array(np.ones(50, np.float32))}))
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content["control"] = self.control
        return messages

    def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
        replies = list(replies)
        self.control = ArrayRecord({"w": Array(np.mean([r.content.pop("control")["w"].numpy() for r in replies], 0))})
        return super().aggregate_train(server_round, replies)


def test_two_records_share_a_payload_and_arrive_apart() -> None:
    strategies, found = (TwoRecords(), TwoRecords()), Wire()
    plain, _ = play(strategies[0], client_app())
    mod = CompressMod("none", values="f32")
    wrapped = CompressedStrategy(strategies[1])
    result, _ = play(wrapped, client_app(mod), between=into(found))
    assert found[0] == {"fedsparse/payload": (SENT, "float32")}
    np.testing.assert_allclose(result.arrays["w"].numpy(), plain.arrays["w"].numpy(), atol=1e-6)
    np.testing.assert_allclose(strategies[1].control["w"].numpy(), strategies[0].control["w"].numpy(), atol=1e-6)


def test_xgboosts_trees_as_bytes_pass_through() -> None:
    trees = {"0": np.frombuffer(b"", np.uint8)}
    found: Wire = []
    app = ClientApp(mods=[CompressMod("eden")])
    tree = '{"learner":{"gradient_booster":{"model":{"gbtree_model_param":{"num_trees":"1","num_parallel_tree":"1"},'
    tree += '"iteration_indptr":[0,1],"trees":[{"id":0}],"tree_info":[0]}}}}'

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record = ArrayRecord([np.frombuffer(tree.encode(), np.uint8)])
        return Message(RecordDict({"a": record, "m": MetricRecord({"num-examples": 1})}), reply_to=message)

    strategy = CompressedStrategy(FedXgbBagging(fraction_evaluate=0))
    result, _ = play(strategy, app, trees, rounds=2, between=into(found))
    assert found[0] == {"0": ("numpy.ndarray", "uint8")}
    assert result.arrays["0"].numpy().tobytes().count(b'"id"') == 8


def test_a_reply_with_other_arrays_than_the_message_stays_dense() -> None:
    def half(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
        return {"w": arrays["w"] + 1}

    found: Wire = []
    start = {"w": np.zeros(9, np.float32), "v": np.zeros(9, np.float32)}
    app = client_app(CompressMod("eden"), train=half)
    result, _ = play(CompressedStrategy(FedAvg()), app, start, rounds=1, between=into(found))
    assert found[0] == {"w": ("numpy.ndarray", "float32")}
    assert (result.arrays["w"].numpy() == 1).all()


def test_a_model_that_changes_its_arrays_between_rounds_goes_on() -> None:
    class Grows(FedAvg):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            arrays, metrics = super().aggregate_train(server_round, replies)
            return ArrayRecord({"w": Array(np.concatenate([arrays["w"].numpy(), np.zeros(5, np.float32)]))}), metrics

    result, _ = play(CompressedStrategy(Grows()), client_app(CompressMod("topk", density=0.01)))
    assert result.arrays["w"].numpy().shape == (SIZE + 15,)


@pytest.mark.parametrize(("start", "step", "fits"), [(0, 40000, True), (30000, 30000, True), (30000, 36000, False)])
def test_a_change_that_could_take_float16_beyond_its_largest_number_is_refused(
    start: float, step: float, fits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The client answers with float32. What a client kept may have the same effect, together with its next update."""

    def train(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
        return {"w": arrays["w"].astype(np.float32) + step * (node == 1)}

    app = client_app(CompressMod("none", values="f32"), train=train)
    result, _ = play(CompressedStrategy(FedAvg()), app, {"w": np.full(8, start, np.float16)}, rounds=1)
    assert np.isfinite(result.arrays["w"].numpy()).all()
    refused = [record.getMessage() for record in caplog.records if record.name == "fedsparse"]
    told = "the reply of node 1 is refused: a change of 3.6e+04 could take its float16 beyond 65504"
    assert refused == ([] if fits else [told])
