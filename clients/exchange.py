"""The client receives the server's mask, and encodes its update under a topology."""

from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from torch import Tensor

from fedsparse.clients.perturb import perturbed
from fedsparse.clients.state_store import load_topology, own_state, save_topology, state_files
from fedsparse.clients.workbench import SparseModel, Workbench
from fedsparse.compression import UpdateCodec
from fedsparse.compression.wire import bind, binding
from fedsparse.compression.within import encode_within
from fedsparse.engine.client_store import save_state
from fedsparse.engine.records import payload_array
from fedsparse.seeds import derive_seed
from fedsparse.sparsity.compact import move_state
from fedsparse.sparsity.masks import decode_mask
from fedsparse.sparsity.readjust import Report
from fedsparse.sparsity.reports import encode_report, report_layout
from fedsparse.vector import Layout

KIND = "-topology"  # of the state that is the topology which the client holds


def receive_topology(
    bench: Workbench, context: Context, sent: ArrayRecord | None, task: ConfigRecord, client: int
) -> SparseModel:
    """The topology of a message: the client's present one, or the one of the mask that came with the message.

    Args:
        sent: the record with the mask.
        task: names the topology by its hash, in hexadecimal.
        client: the partition id.

    Raises:
        ValueError: the client does not hold the topology that the message names, perhaps because it lost its state.
    """
    files, name = state_files(task, client, KIND), str(task["topology"])
    held = bench.under_bits(load_topology(context, files))
    if sent is not None and f"{held.topology.hash:016x}" != name:  # else an earlier attempt has saved it already
        parameters = bench.model.layout.parameters
        held = bench.under(decode_mask(sent["mask"].data, bench.layers, parameters, held.topology))
        save_topology(context, files, held.bits)
    if f"{held.topology.hash:016x}" != name:
        raise ValueError(f"the message is about topology {name}, but this client holds {held.topology.hash:016x}")
    return held


def encode_update(
    bench: Workbench, context: Context, task: ConfigRecord, update: Tensor, own: SparseModel, codec: UpdateCodec,
    client: int, reserved: int = 0,
) -> tuple[bytes, dict[str, float]]:  # fmt: skip
    """The payload of the client's update under its own topology, and the codec's statistics.

    The client's state moves to this topology first: the residual of a weight that no longer exists is dropped.

    Args:
        reserved: the bytes of what the client uploads besides, which an uplink budget has to pay for too.

    Raises:
        ValueError: an earlier attempt at this round left a payload under another topology.
    """
    round, accepted = int(task["round"]), int(task["accepted-round"])  # type: ignore[arg-type]
    state = own_state(context, task, client)
    if state.payload and state.sent_round == round:
        # A SuperNode may run the same message twice. The first attempt saved its state with the payload in a file, so
        # the second one answers with that payload: another update on top of that state would be sent twice.
        if state.topology != own.bits:
            raise ValueError(f"a second attempt at round {round} ended in another topology than the first")
        return state.payload, {"compress_seconds": 0.0, "encode_seconds": 0.0}
    last = bench.under_bits(state.topology)
    last.codec.settle(state, accepted)
    if last.bits != own.bits:
        move_state(state, last.compact, own.compact)
        state.topology = own.bits
    vector, support = own.compact.gather(update), bench.config.support_seed(round)
    if bench.config.is_private:
        vector = perturbed(vector, codec, bench.config, round, float(task["dp-noise"]))  # type: ignore[arg-type]
    seed = derive_seed(bench.config.seed, "compress", round=round, partition_id=client)
    if "uplink-share" in task:
        most, first = float(task["uplink-share"]) - reserved, float(task["density"])  # type: ignore[arg-type]
        payload, stats, state = encode_within(codec, vector, state, most, first=first, round=round, seed=seed)
    else:
        payload, stats = codec.encode(vector, state, round=round, seed=seed, support=support)
    save_state(context, state_files(task, client), state)
    return payload, stats


def update_array(payload: bytes, own: SparseModel, task: ConfigRecord, client: int) -> Array:
    """The payload of ``encode_update`` for the server, bound to this client."""
    return payload_array(bind(payload, binding(str(task["run"]), client)), own.compact.layout)


def report_array(report: Report, layout: Layout, task: ConfigRecord, client: int) -> Array:
    """The payload of a client's report about the weights of ``layout``, for the round of the task."""
    payload = encode_report(report, layout, int(task["round"]))  # type: ignore[arg-type]
    return payload_array(bind(payload, binding(str(task["run"]), client)), report_layout(layout))
