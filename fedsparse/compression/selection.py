"""The interface of selections, which choose the coordinates of ``residual + update`` that travel in a round."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from fedsparse.compression.arrays import Array, overwritable
from fedsparse.compression.client_state import ClientState

Indices = Sequence[Array] | None
"""For each part the coordinates to keep; None keeps every coordinate of every part."""


class Part(NamedTuple):
    """A range of the parameters from which a selection keeps about ``k`` coordinates."""

    start: int
    stop: int
    k: int


class Selection(Protocol):
    """A compressor that keeps some coordinates. One instance serves all clients.

    The contract: the indices of a part are int64, sorted and distinct, count from the start of the vector and lie in
    the part's range. Each selection decides how many: topk, hggtopk, dgc and randomk keep exactly ``k`` of each part,
    gaussian and redsync within a third of ``k``, threshold any number.

    A class may set ``seeded = True`` if its indices of part i are ``indices.draw(seed, i, ...)``: the seed then travels
    in their place. A class whose number of indices does not follow from ``k`` sets ``goes_by_density = False``.
    """

    def indices(self, vector: Array, parts: list[Part], memory: dict[str, Array], seed: int) -> Indices:
        """Chooses the coordinates of a vector that travel.

        Args:
            vector: float32, shape ``(parameters,)``: the update plus the residual. Not to be written to.
            parts: ascending ranges that cover the parameters.
            memory: the client's arrays by name, kept from round to round; the selection may read and replace them.
            seed: of this round and client; all randomness comes from it.

        Returns:
            Indices as the contract says, NumPy arrays for a NumPy vector and tensors for a tensor.
        """
        ...


class FusedSelection(Protocol):
    """A selection that gets the update before the residual is added: hggtopk selects while it adds, and dgc adds
    momentum first. It has ``select`` in place of ``indices``; the contract is the same.
    """

    def select(
        self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int
    ) -> tuple[Array, Indices]:
        """Does what :func:`accumulate` and :meth:`Selection.indices` do together.

        Args:
            update: float32, shape ``(parameters,)``, finite. Not to be written to.
            state: of the client. A residual that is not None must be replaced by residual plus update.
            parts, seed: as for :meth:`Selection.indices`.
            round: the server's round, from 1.

        Returns:
            The vector that was selected from (``state.residual``, unless that is None), and the indices.
        """
        ...


def accumulate(update: Array, state: ClientState) -> Array:
    """Adds ``update`` to ``state.residual`` and returns the sum; ``update`` itself when there is no residual."""
    if state.residual is None:
        return update
    total: Any = overwritable(state.residual)
    add: Any = np.add if isinstance(total, np.ndarray) else torch.add
    state.residual = add(state.residual, update, out=total)
    return total
