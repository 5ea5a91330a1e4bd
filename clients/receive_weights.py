"""The client's side of the downlink: whole weights, or the changes since the weights that the client holds."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message

from fedsparse.clients.state_store import state_files
from fedsparse.clients.workbench import Workbench
from fedsparse.compression import ClientState, SparseUpdate, decode
from fedsparse.compression.sparse_update import Segment
from fedsparse.engine.client_store import load_state, save_state
from fedsparse.vector import Layout, digest

KIND, WEIGHTS, ROUND = "-weights", "weights", "round"  # the kind of this client state, and the names of its two arrays


class MissedChange(RuntimeError):
    """The changes do not lead from the client's weights to the server's. The server sends all weights next time."""


def receive_weights(bench: Workbench, context: Context, message: Message, layout: Layout, client: int) -> SparseUpdate:
    """The weights to train from. The client keeps them, because the next message may bring changes of them."""
    arrays, task = message.content.array_records["arrays"], message.content.config_records["task"]
    files = state_files(task, client, KIND)
    state = load_state(context, files, KIND)
    weights = receive(arrays, layout, state)
    save_state(context, files, state, KIND)
    return weights


def receive(arrays: ArrayRecord, layout: Layout, state: ClientState) -> SparseUpdate:
    """The weights to train from, for every coordinate of ``layout``.

    Args:
        arrays: ``weights``, a dense payload; or one payload for each round that the client may have missed, and
            ``hash``, the digest of the resulting weights.
        layout: of the payloads.
        state: where the weights are kept for the next changes.

    Raises:
        PayloadError: a payload that cannot be trusted.
        MissedChange: the changes do not fit the weights in ``state``, which stays as it was.
    """
    if "weights" in arrays:
        update = decode(arrays["weights"].data, layout)
        weights, round = update.to_dense(), update.round
    else:
        if WEIGHTS not in state.memory:
            raise MissedChange("changes of the global weights for a client that holds none")
        weights, round = np.array(state.memory[WEIGHTS]), int(state.memory[ROUND][0])
        changes = [decode(array.data, layout) for name, array in arrays.items() if name != "hash"]
        for change in sorted(changes, key=lambda c: c.round):
            if change.round > round:  # earlier changes came with a message whose reply was lost
                change.add_to(weights)
                round = change.round
        if digest(weights) != arrays["hash"].data:
            raise MissedChange(f"the global weights of round {round} differ from the server's")
    state.memory[WEIGHTS], state.memory[ROUND] = weights, np.array([round], np.float32)
    return SparseUpdate(layout, round, (Segment(0, layout.size, None, weights),))
