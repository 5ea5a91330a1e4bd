"""The client's side of frozen weights, which the server sends once."""

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context

from fedsparse.clients.state_store import state_files
from fedsparse.clients.workbench import Workbench
from fedsparse.compression import ClientState, decode
from fedsparse.engine.client_store import load_state, save_state
from fedsparse.vector import digest

KIND, WEIGHTS = "-frozen", "weights"
"""The kind of this client state, and the name of its array."""


def receive_frozen(
    bench: Workbench, context: Context, sent: ArrayRecord | None, task: ConfigRecord, client: int
) -> None:
    """Load the frozen weights of the model, which came with the message or with an earlier one.

    Args:
        sent: the record with the weights.
        task: names the weights by their hash.
        client: the partition id.

    Raises:
        PayloadError: weights that cannot be trusted.
        ValueError: the client holds none or others, perhaps because it lost its state.
    """
    files = state_files(task, client, KIND)
    if sent is not None:
        weights = decode(sent["weights"].data, bench.frozen.layout).to_dense()
        save_state(context, files, ClientState(memory={WEIGHTS: weights}), KIND)
    elif bench.frozen_hash == task["frozen"]:  # another client of this process has loaded them
        return
    else:
        memory = load_state(context, files, KIND).memory
        if WEIGHTS not in memory:
            raise ValueError("the message is about frozen weights that this client does not hold")
        weights = np.asarray(memory[WEIGHTS])
    if digest(weights).hex() != task["frozen"]:
        raise ValueError("these are not the frozen weights that the message names")
    bench.frozen.load(torch.from_numpy(weights))
    bench.frozen_hash = str(task["frozen"])
