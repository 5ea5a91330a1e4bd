"""A client's memory in its Flower Context: the residual and what else compression keeps between rounds."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context

from fedsparse.compression import ClientState

KEY = "fedsparse"
STYPE = "little-endian"  # the plain bytes of an array: read back as a view, without a copy


def load_state(context: Context) -> ClientState:
    """What the client remembers; a fresh state when it has never trained. Arrays are read-only views."""
    flat: dict[str, np.ndarray | bytes | int] = {}
    for key, array in context.state.array_records.get(f"{KEY}/arrays", ArrayRecord()).items():
        flat[key] = np.frombuffer(array.data, array.dtype).reshape(array.shape)
    flat |= context.state.config_records.get(f"{KEY}/scalars", ConfigRecord())  # type: ignore[arg-type]
    return ClientState.from_dict(flat)


def save_state(context: Context, state: ClientState) -> None:
    """Replace what the client remembers."""
    arrays, scalars = ArrayRecord(), ConfigRecord()
    for key, value in state.to_dict().items():
        if isinstance(value, np.ndarray):
            arrays[key] = Array(value.dtype.newbyteorder("<").str, value.shape, STYPE, value.tobytes())
        else:
            scalars[key] = value
    context.state[f"{KEY}/arrays"] = arrays
    context.state[f"{KEY}/scalars"] = scalars
