"""What CompressMod and CompressedStrategy cost a message, beside Flower's own handling of the dense one.

    python -m benchmarks.flower_mod [REPEATS]

Flower's own handling of a message and its reply: the arrays are read, the client's new ones are written, each message
is taken apart into objects with a hash each (``deflate``) and put together, and FedAvg adds the reply up. With the two
lines the mod encodes, a small reply is taken apart and put together, and FedAvg reads what the wrapper decodes. The
time on the network, which shrinks with the bytes, is not in the table. Milliseconds are the processor's, so that other
programs beside this one hardly matter.
"""

import statistics
import sys
import time
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.common import machine
from fedsparse.engine.records import array_bytes
from fedsparse.flower import CompressMod
from fedsparse.flower.decoded import decoded
from fedsparse.flower.names import ACCEPTED, RECORD, ROUND
from fedsparse.flower.shared_arrays import SharedArrays

LAYERS = {"1.2 MB": [(1000, 200), (200, 400), (400, 50)], "44 MB": [(2000, 1500)] * 3 + [(1000, 2000)]}
MODS: dict[str, dict[str, Any] | None] = {
    "": None,
    "eden": {},
    "topk": {"density": 0.01},
    "hggtopk": {"density": 0.01},
}


def over_the_wire(content: RecordDict) -> RecordDict:
    """A message's content as its receiver gets it."""
    objects = {name: part.deflate() for name, part in get_all_nested_objects(content).items()}
    received: RecordDict = inflate_object_from_contents(content.object_id, objects)  # type: ignore[assignment]
    return received


def train(message: Message, context: Context) -> Message:
    """A client that reads its arrays and writes others, without training."""
    arrays = message.content["arrays"].to_numpy_ndarrays()  # type: ignore[union-attr]
    new = ArrayRecord([array * np.float32(1.01) for array in arrays])
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": new, "metrics": metrics}), reply_to=message)


def one_message(arrays: ArrayRecord, mod: CompressMod | None, context: Context, round: int) -> tuple[float, int]:
    """Seconds of handling one message and its reply, and the reply's bytes."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": round})})
    began = time.process_time()
    if mod:
        content[RECORD] = ConfigRecord({ROUND: round, ACCEPTED: round - 1})
    message = Message(over_the_wire(content), dst_node_id=1, message_type="train")
    reply = mod(message, context, train) if mod else train(message, context)
    sent = array_bytes(reply.content)
    reply.content = over_the_wire(reply.content)
    if mod:
        shared = SharedArrays({"arrays": arrays})
        reply.content, _ = decoded(reply, shared, round, every_coordinate=False)
    aggregate_arrayrecords([reply.content], "num-examples")
    return time.process_time() - began, sent


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    print(f"{machine()}\n\n| arrays | CompressMod | ms a message | beside Flower's own | reply |")
    print("|---|---|---:|---:|---:|")
    for size, shapes in LAYERS.items():
        rng = np.random.default_rng(0)
        arrays = ArrayRecord([rng.standard_normal(shape, np.float32) for shape in shapes])
        mods = {name: parts if parts is None else CompressMod(name, **parts) for name, parts in MODS.items()}
        contexts = {name: Context(1, 1, {}, RecordDict(), {}) for name in mods}
        measured: dict[str, list[float]] = {name: [] for name in mods}
        sent = {}
        for round in range(1, repeats + 1):  # interleaved, because other programs may be running
            for name, mod in mods.items():
                seconds, sent[name] = one_message(arrays, mod, contexts[name], round)
                measured[name].append(seconds)
        own = statistics.median(measured[""][1:])
        for name, seconds_of in measured.items():
            ms = statistics.median(seconds_of[1:])
            print(f"| {size} | {name or 'none'} | {1e3 * ms:.1f} | {ms / own - 1:+.0%} | {sent[name] / 1e3:,.0f} kB |")


if __name__ == "__main__":
    main()
