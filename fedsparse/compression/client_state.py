"""What one client remembers between rounds. No Flower in it, and nothing shared between clients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor
"""float32 vectors of a client: NumPy on the CPU, torch on a device."""

AnyArray = TypeVar("AnyArray", bound=Array)
Flat = dict[str, Array | bytes | int]


@dataclass
class ClientState:
    """Memory of one client.

    Attributes:
        residual: float32, shape ``(layout.parameters,)``: what was not sent yet (error feedback). None until needed.
            uint16 between two rounds where it is kept in bfloat16.
        memory: what the selection keeps by name: ``thresholds``, ``momentum``. float32 arrays.
        payload: the last payload sent, until the server is known to have accepted or lost it; else empty, and always
            without error feedback.
        sent_round: the last round with a payload, that of ``payload`` if there is one; 0 for none.
        topology: bits of the mask (``np.packbits``) whose weights alone all this is about; empty where all exist.
    """

    residual: Array | None = None
    memory: dict[str, Array] = field(default_factory=dict)
    payload: bytes = b""
    sent_round: int = 0
    topology: bytes = b""

    def to_dict(self) -> Flat:
        """As a flat dict of arrays, bytes and integers. Arrays are not copied: store it before the next encode."""
        flat: Flat = {f"memory/{name}": array for name, array in self.memory.items()}
        if self.residual is not None:
            flat["residual"] = self.residual
        if self.payload:
            flat["payload"] = self.payload
        if self.sent_round:
            flat["sent_round"] = self.sent_round
        if self.topology:
            flat["topology"] = self.topology
        return flat

    @classmethod
    def from_dict(cls, flat: Mapping[str, Array | bytes | int]) -> "ClientState":
        """The inverse of :meth:`to_dict`. Arrays may be read-only views over bytes: they are copied on write only."""
        state = cls()
        for key, value in flat.items():
            if key.startswith("memory/") and isinstance(value, Array):
                state.memory[key.removeprefix("memory/")] = value
            elif key == "residual" and isinstance(value, Array):
                state.residual = value
            elif key in ("payload", "topology") and isinstance(value, bytes):
                setattr(state, key, value)
            elif key == "sent_round" and isinstance(value, int):
                state.sent_round = value
            else:
                raise ValueError(f"client state has no {key!r} of type {type(value).__name__}")
        return state


def to_numpy(array: Array) -> np.ndarray:
    """``array`` on the host, without a copy where it is there already."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def beside(array: Array, other: Array) -> Array:
    """``array`` where ``other`` lives: NumPy, or torch on its device. No copy where it is there already."""
    if isinstance(other, np.ndarray):
        return to_numpy(array)
    return (torch.tensor(array) if isinstance(array, np.ndarray) else array).to(other.device)


def buffer_for(array: AnyArray) -> AnyArray:
    """Where the next value of ``array`` may be written: itself, or, if it is a read-only view, a new array."""
    return np.empty_like(array) if isinstance(array, np.ndarray) and not array.flags.writeable else array


def joined(indices: Sequence[Array]) -> Array:
    """The indices of all parts as one array."""
    host = [i for i in indices if isinstance(i, np.ndarray)]
    return np.concatenate(host) if host else torch.cat([i for i in indices if isinstance(i, Tensor)])


def squares(vector: Array) -> float:
    """The sum of squares, in float32: one read at the speed of memory."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(vector @ vector)


def norm(vector: Array) -> float:
    """The L2 norm, also where float32 is too narrow for its square."""
    total = squares(vector)
    return math.sqrt(total) if 1e-30 < total < math.inf else float(np.linalg.norm(to_numpy(vector).astype(np.float64)))
