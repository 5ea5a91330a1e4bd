"""What a client keeps between rounds: its compressor's state, its topology, and its optimizer's moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context

from fedsparse.compression import ClientState
from fedsparse.engine.client_store import flat_from_files, flat_to_files, load_state, save_state
from fedsparse.engine.state_files import SECRETS, StateFiles
from fedsparse.sparsity import TopologyMethod

MOMENTS = "-moments"
"""The kind of the state in which a client keeps its optimizer's moments."""

TOPOLOGY = "fedsparse/topology"


def state_files(task: ConfigRecord, client: int, kind: str = "") -> StateFiles | None:
    """The client's state files of this kind; None when the server's message asks for the Context instead."""
    if not task["state-folder"]:
        return None
    kept: Any = task.get("kept-rounds", [])
    return StateFiles(Path(str(task["state-folder"])) / f"{client}{kind}", int(task["round"]), kept)  # type: ignore[arg-type]


def own_state(context: Context, task: ConfigRecord, client: int, kind: str = "") -> ClientState:
    """The client's state of this kind; a new one where the network has changed since, because its layers were factored.

    Residuals, moments and weights of the earlier network are dropped.
    """
    ranks: Any = task.get("ranks", [])
    shape = ",".join(map(str, ranks)).encode()
    state = load_state(context, state_files(task, client, kind), kind)
    return state if state.shape == shape else ClientState(shape=shape)


@contextmanager
def kept_moments(context: Context, task: ConfigRecord, client: int, method: TopologyMethod) -> Iterator[dict[str, Any]]:
    """What the client's optimizer remembers between rounds, to be changed while the context is open.

    Moments start anew when the topology may have changed more than once since the client kept them. The client does not
    see the masks between, so a weight that it holds may have been pruned and grown again.

    A message that the client runs twice leaves the moments as after its first run.
    """
    files, round = state_files(task, client, MOMENTS), int(task["round"])  # type: ignore[arg-type]
    state = own_state(context, task, client, MOMENTS)
    is_seen = sum(map(method.is_readjustment, range(state.sent_round, round))) <= 1
    memory: dict[str, Any] = dict(state.memory) if is_seen else {}
    yield memory
    if state.sent_round != round:
        save_state(context, files, ClientState(memory=memory, sent_round=round, shape=state.shape), MOMENTS)


def load_secrets(context: Context, files: StateFiles | None) -> dict[str, bytes]:
    """What the client keeps for secure aggregation until the round is over; empty after that."""
    record: Any = flat_from_files(files) if files else context.state.get(SECRETS, {})
    return {name: bytes(value) for name, value in record.items()}


def save_secrets(context: Context, files: StateFiles | None, secrets: dict[str, bytes]) -> None:
    """Replace what ``load_secrets`` loads, and leave nothing of what was there before."""
    if not files:
        context.state.pop(SECRETS, None)
        if secrets:
            context.state[SECRETS] = ConfigRecord(dict(secrets))
        return
    if secrets:
        flat_to_files(files, dict(secrets))
    for file in files.folder.glob("*"):
        if not secrets or file != files.next:
            file.unlink()


def load_topology(context: Context, files: StateFiles | None) -> bytes:
    """The bits of the topology that the server last sent this client; empty (all weights) when it never sent one."""
    if files is not None:
        return bytes(flat_from_files(files).get("bits", b""))
    record: Any = context.state.get(TOPOLOGY)
    return record["bits"] if record else b""


def save_topology(context: Context, files: StateFiles | None, bits: bytes) -> None:
    """Replace the topology that this client holds."""
    if files is not None:
        flat_to_files(files, {"bits": np.frombuffer(bits, np.uint8)})
    else:
        context.state[TOPOLOGY] = ConfigRecord({"bits": bits})
