"""The mod's payloads are those of our own client, for the same update, state and seed."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.wire import bind, binding
from fedsparse.config import Config
from fedsparse.flower import CompressedStrategy, CompressMod
from fedsparse.seeds import derive_seed
from fedsparse.vector import FlatModel
from tests.fedsparse.flower.federation import Network, client_app, play

Network(client_app(), 1, list)  # sets the sender that Message() needs

PARTS = [
    {"compressor": "hggtopk"},
    {"compressor": "eden"},
    {"compressor": "stc", "density": 0.02},
    {"compressor": "powersgd"},
    {"compressor": "randomk", "shared_support": True},
    {"compressor": "dgc", "residual_dtype": "bf16"},
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.BatchNorm1d(40), nn.Linear(40, 10))


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: parts["compressor"])
def test_three_rounds_of_payloads_are_our_own_clients_with_the_second_one_lost(parts: dict[str, object]) -> None:
    model = FlatModel(network())
    config = Config.from_mapping(parts | {"seed": 5})
    codec, state = UpdateCodec(model.layout, **config.compression()), ClientState()
    mod, context = CompressMod(**parts, seed=5), Context(1, 3, {"partition-id": 7}, RecordDict(), {})  # type: ignore[arg-type]
    record = ArrayRecord(model.module.state_dict())
    for round, accepted in ((1, 0), (2, 1), (3, 1)):
        change = np.random.default_rng(round).normal(0, 0.01, model.layout.size).astype(np.float32)

        def train(message: Message, _: Context, change: np.ndarray = change) -> Message:
            local = FlatModel(network())
            local.vector += torch.from_numpy(change)
            return Message(RecordDict({"arrays": ArrayRecord(local.module.state_dict())}), reply_to=message)

        task = ConfigRecord({"round": round, "accepted-round": accepted})
        message = Message(RecordDict({"arrays": record, "fedsparse": task}), dst_node_id=3, message_type="train")
        reply = mod(message, context, train)
        local = FlatModel(network())
        update = (local.vector + torch.from_numpy(change) - local.vector).numpy()
        codec.settle(state, accepted)
        seed = derive_seed(5, "compress", round=round, partition_id=7)
        payload, _ = codec.encode(update, state, round=round, seed=seed, support=config.support_seed(round))
        sent = reply.content["arrays"]["fedsparse/payload"].data
        assert sent == bind(payload, binding(str(message.metadata.run_id), 3))


@pytest.mark.parametrize("store", ["context", "files"])
def test_a_message_that_a_node_runs_twice_is_answered_with_the_same_payload(tmp_path: Path, store: str) -> None:
    mod = CompressMod("topk", density=0.1, state_folder=tmp_path if store == "files" else None)
    context, sent = Context(1, 3, {}, RecordDict(), {}), []
    task = ConfigRecord({"round": 1, "accepted-round": 0})
    content = RecordDict({"a": ArrayRecord({"w": Array(np.zeros(50, np.float32))}), "fedsparse": task})
    for attempt in range(2):

        def train(message: Message, _: Context, attempt: int = attempt) -> Message:
            new = ArrayRecord({"w": Array(np.arange(50, dtype=np.float32) * (1 - 2 * attempt))})
            return Message(RecordDict({"a": new}), reply_to=message)

        reply = mod(Message(content, dst_node_id=3, message_type="train"), context, train)
        sent.append(reply.content["a"]["fedsparse/payload"].data)
    assert sent[0] == sent[1]
    assert bool(list(tmp_path.rglob("*.npz"))) == (store == "files") == (not context.state)


@pytest.mark.parametrize("parts", [{"compressor": "eden"}, {"compressor": "topk", "density": 0.01}])
def test_fedavg_holds_no_dense_copy_of_a_client(parts: dict[str, object]) -> None:
    """Of 30 replies, each 0.4 MB when decoded, the server holds a few at once."""
    size, peaks = 100_000, list[int]()

    class Measured(FedAvg):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            gc.collect()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            aggregated = super().aggregate_train(server_round, replies)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            return aggregated

    tracemalloc.start()
    try:
        mod = CompressMod(**parts)  # type: ignore[arg-type]
        strategy = CompressedStrategy(Measured(fraction_evaluate=0))
        play(strategy, client_app(mod), {"w": np.zeros(size, np.float32)}, rounds=1, nodes=30)
    finally:
        tracemalloc.stop()
    assert peaks[0] < 6 * 4 * size


def test_what_fedavg_computes_is_to_the_bit_what_it_computes_of_dense_replies() -> None:
    class Dense(FedAvg):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            replies = list(replies)
            for reply in replies:
                arrays = reply.content["arrays"].items()
                reply.content["arrays"] = ArrayRecord({name: Array(array.numpy()) for name, array in arrays})
            return super().aggregate_train(server_round, replies)

    results = [
        play(CompressedStrategy(strategy()), client_app(CompressMod("eden")))[0].arrays["w"].data
        for strategy in (FedAvg, Dense)
    ]
    assert results[0] == results[1]
