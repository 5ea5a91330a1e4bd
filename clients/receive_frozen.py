"""The client's side of the weights beside adapters: the server sends them once, and then what it adds to them."""

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context

from fedsparse.clients.receive_weights import receive
from fedsparse.clients.state_store import state_files
from fedsparse.clients.workbench import Workbench
from fedsparse.compression.changes import WEIGHTS
from fedsparse.engine.client_store import load_state, save_state
from fedsparse.vector import digest

KIND = "-frozen"  # of this client state


def receive_frozen(
    bench: Workbench, context: Context, sent: ArrayRecord | None, task: ConfigRecord, client: int
) -> None:
    """Load the frozen weights of the model, which came with the message or with an earlier one.

    Args:
        sent: the record with the weights, or with what the server has added to them.
        task: names the weights by their hash.
        client: the partition id.

    Raises:
        PayloadError: weights that cannot be trusted.
        MissedChange: what was added is not to the weights that the client holds.
        ValueError: the client holds none or others, perhaps because it lost its state.
    """
    is_loaded = bench.frozen_hash == task["frozen"]  # by another client of this process
    if sent is None and is_loaded:
        return
    files = state_files(task, client, KIND)
    state = load_state(context, files, KIND)
    if sent is not None:
        receive(sent, bench.frozen.layout, state)
        save_state(context, files, state, KIND)
    if WEIGHTS not in state.memory:
        raise ValueError("the message is about frozen weights that this client does not hold")
    weights = np.asarray(state.memory[WEIGHTS])
    if digest(weights).hex() != task["frozen"]:
        raise ValueError("these are not the frozen weights that the message names")
    if not is_loaded:
        bench.frozen.load(torch.from_numpy(weights))
        bench.frozen_hash = str(task["frozen"])
