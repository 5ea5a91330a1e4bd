"""The client's side of the downlink: whole weights, or the changes since the weights that the client holds."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message

from fedsparse.clients.state_store import own_state, state_files
from fedsparse.clients.workbench import Workbench
from fedsparse.compression import ClientState, SparseUpdate, decode
from fedsparse.compression.changes import ROUND, WEIGHTS, follow, keep
from fedsparse.compression.sparse_update import Segment
from fedsparse.engine.client_store import save_state
from fedsparse.vector import Layout

KIND = "-weights"  # of this client state


def receive_weights(bench: Workbench, context: Context, message: Message, layout: Layout, client: int) -> SparseUpdate:
    """The weights to train from. The client keeps them, because the next message may bring changes of them."""
    arrays, task = message.content.array_records["arrays"], message.content.config_records["task"]
    state = own_state(context, task, client, KIND)
    weights = receive(arrays, layout, state)
    save_state(context, state_files(task, client, KIND), state, KIND)
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
        keep(state, update.to_dense(), update.round)
    else:
        payloads = [array.data for name, array in arrays.items() if name != "hash"]
        follow(state, payloads, arrays["hash"].data, layout)
    weights = np.asarray(state.memory[WEIGHTS])
    return SparseUpdate(layout, int(state.memory[ROUND][0]), (Segment(0, layout.size, None, weights),))
