"""Stores a client's compression state between rounds: its residual, and what else its compressor keeps.

A small state lives in Flower's Context, which Flower copies with every message; a large state lives in a file for each
client and round. Both survive a crash: a file is written whole, and when a client saved its state but its reply was
lost, the server's next message names an earlier accepted round, so that the payload returns to the residual.

A tensor in a Context stays on its device until its bytes are asked for, which the process that trains never does. So
each client costs its device 4 bytes a weight for the residual (and as much for dgc's momentum). A residual in bfloat16
is rounded on the host, and stays there until the next round.
"""

import logging
from typing import Any
from zipfile import BadZipFile

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from torch import Tensor

from fedsparse.compression import ClientState
from fedsparse.compression.arrays import to_numpy
from fedsparse.compression.client_state import Flat
from fedsparse.engine.state_files import StateFiles
from fedsparse.files import replaced

log = logging.getLogger("fedsparse")

ARRAYS, SCALARS = "fedsparse/arrays", "fedsparse/scalars"
"""The names of a state's records in a Context, before its kind."""
STYPE = "little-endian"  # the plain bytes of an array: read back as a view, without a copy


class HeldArray(Array):
    """A float32 tensor that stays on its device. Its bytes are made when Flower or the pipe to a worker reads them."""

    def __init__(self, tensor: Tensor) -> None:
        self.dtype, self.shape, self.stype, self.tensor = "<f4", tuple(tensor.shape), STYPE, tensor

    @property
    def data(self) -> bytes:  # type: ignore[override]
        return to_numpy(self.tensor).astype("<f4", copy=False).tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, self.shape, self.stype, self.data)


def load_state(context: Context, files: StateFiles | None, kind: str = "") -> ClientState:
    """The client's state of this ``kind``; a fresh state when there is none. Arrays may be read-only views.

    States of different kinds are independent.
    """
    return ClientState.from_dict(_from_context(context, kind) if files is None else flat_from_files(files))


def save_state(context: Context, files: StateFiles | None, state: ClientState, kind: str = "") -> None:
    """Replace the client's state of this ``kind``. The caller must not write to the state's tensors afterwards.

    Raises:
        OSError: the file cannot be written; the state before is still there.
    """
    if files is None:
        _to_context(context, state.to_dict(), kind)
    else:
        flat = state.to_dict()
        if flat or files.newest():
            flat_to_files(files, flat)


def _from_context(context: Context, kind: str) -> Flat:
    flat: Flat = {}
    state: Any = context.state
    for key, array in state.get(ARRAYS + kind, {}).items():
        if isinstance(array, HeldArray):  # a copy, because compression writes to it and this attempt may fail
            flat[key] = array.tensor.clone()
        else:
            flat[key] = np.frombuffer(array.data, array.dtype).reshape(array.shape)
    flat |= state.get(SCALARS + kind, {})
    return flat


def _to_context(context: Context, flat: Flat, kind: str) -> None:
    if not flat and ARRAYS + kind not in context.state:
        return
    arrays, scalars = ArrayRecord(), ConfigRecord()
    for key, value in flat.items():
        if isinstance(value, np.ndarray):
            arrays[key] = Array(value.dtype.newbyteorder("<").str, value.shape, STYPE, value.tobytes())
        elif isinstance(value, Tensor):
            arrays[key] = HeldArray(value)
        else:
            scalars[key] = value
    context.state[ARRAYS + kind], context.state[SCALARS + kind] = arrays, scalars


def flat_from_files(files: StateFiles) -> Flat:
    """The newest state; empty without one. A damaged file is set aside, because it would fail its client for ever."""
    if not (file := files.newest()):
        return {}
    try:
        with np.load(file) as content:
            arrays = {key: content[key] for key in content.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        log.warning("the state in %s is damaged (%s); it is set aside, and its client starts without it", file, error)
        file.replace(file.with_suffix(".damaged"))
        return {}
    return {key: array if array.ndim else array.item() for key, array in arrays.items()}


def flat_to_files(files: StateFiles, flat: Flat) -> None:
    # The file is not synced: the server does this for all clients when it writes a checkpoint.
    files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with replaced(files.next, synced=False, private=True) as part, part.open("wb") as stream:
            np.savez(stream, **{key: _as_array(value) for key, value in flat.items()})
    except OSError as error:
        raise OSError(f"cannot keep the client's state in {files.next}: {error.strerror or error}") from None
    files.remove_old()


def _as_array(value: Any) -> Any:
    if isinstance(value, bytes):
        return np.void(value)  # np.void keeps a payload's trailing zeros, which np.bytes_ drops
    return to_numpy(value) if isinstance(value, Tensor) else value
