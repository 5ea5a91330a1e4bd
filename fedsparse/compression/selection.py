"""The door every selection stands behind: which coordinates of ``residual + update`` travel this round."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from fedsparse.compression.client_state import Array, ClientState, buffer_for


class Part(NamedTuple):
    """A range of the parameters that is selected from on its own, and how many of it to keep."""

    start: int
    stop: int
    k: int


class Selected(NamedTuple):
    """What was chosen.

    Attributes:
        vector: float32, shape ``(parameters,)``: the update, residual included.
        indices: for each part the sorted int64 coordinates to keep, counted from the start of ``vector``; None: all.
        seeded: the indices follow from the seed alone, so that only the seed travels.
    """

    vector: Array
    indices: Sequence[Array] | None
    seeded: bool = False


class Selection(Protocol):
    """One instance serves every client; whatever a client needs to remember is in its ``state``."""

    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        """Chooses coordinates of ``update`` plus ``state.residual``, if there is one.

        Args:
            update: float32, shape ``(parameters,)``, finite; never written to.
            state: ``residual``, if not None, is replaced by ``residual + update`` (the codec takes out what it sends).
            parts: ascending ranges that cover the parameters.
            round: the server's round, from 1.
            seed: of this round and client.
        """
        ...


def accumulate(update: Array, state: ClientState) -> Array:
    """``state.residual += update``; returns it, or ``update`` itself where there is no error feedback."""
    if state.residual is None:
        return update
    out = buffer_for(state.residual)
    add: Callable[..., object] = np.add if isinstance(out, np.ndarray) else torch.add
    add(state.residual, update, out=out)
    state.residual = out
    return out
