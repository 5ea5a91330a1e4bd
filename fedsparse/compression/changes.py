"""Weights that a sender makes known as compressed changes, and how a receiver follows them.

Tang, Yu, Lian, Zhang and Liu, "DoubleSqueeze", ICML 2019 (compression both ways, error feedback on the server);
Philippenko and Dieuleveut, "Preserved central model for faster bidirectional compression", NeurIPS 2021 (MCM): the
server keeps its exact weights w, and the weights v that clients can hold. The server sends C(w - v), and both sides add
C(w - v) to v. The next difference contains what C left out of this one: that is the error feedback.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.client_state import ClientState
from fedsparse.compression.codec import UpdateCodec
from fedsparse.compression.wire import decode
from fedsparse.vector import Layout, digest


class MissedChange(RuntimeError):
    """The changes do not lead from the receiver's weights to the sender's. The sender sends all weights next time."""


class Changes:
    """The weights v, and the changes of the last rounds that led to them.

    Args:
        layout: of the weights.
        known: the first v: float32, shape ``(layout.size,)``; changed in place.
        compression: the arguments of ``UpdateCodec`` after the layout.

    Attributes:
        round: the round of v.
        known: v.
    """

    def __init__(self, layout: Layout, known: np.ndarray, round: int, compression: Mapping[str, Any]) -> None:
        self.layout, self.known, self.round = layout, known, round
        self._codec, self._state = UpdateCodec(layout, **compression), ClientState()
        self._payloads: dict[int, bytes] = {}  # round -> what made its v from the v before

    def advance(self, weights: np.ndarray, round: int, seed: int) -> None:
        """Move v towards ``weights``, float32, shape ``(layout.size,)``, by one change.

        Raises:
            NonFiniteError: NaN or infinity in the weights.
        """
        payload, _ = self._codec.encode(weights - self.known, self._state, round=round, seed=seed)
        self.add(payload, round)

    def add(self, payload: bytes, round: int) -> None:
        """Move v by a change that is coded already.

        Raises:
            PayloadError: a value in it is not finite.
        """
        self._codec.decode(payload).add_to(self.known)
        self._payloads[round], self.round = payload, round
        while sum(map(len, self._payloads.values())) > 4 * self.layout.size:  # beyond, whole weights are shorter
            del self._payloads[min(self._payloads)]

    def since(self, held: int) -> dict[int, bytes] | None:
        """The changes by round that lead from the v of round ``held`` to v; None where some are forgotten."""
        missing = {round: payload for round, payload in self._payloads.items() if round > held}
        return missing if held and len(missing) >= self.round - held else None

    @property
    def hash(self) -> bytes:
        """The digest of v, with which a receiver checks its own."""
        return digest(self.known)

    def state_dict(self) -> dict[str, Any]:
        """v, the changes that led to it, and the memory of their compressor."""
        memory = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in self._state.to_dict().items()}
        changes = {str(round): payload for round, payload in self._payloads.items()}
        return {"round": self.round, "known": torch.from_numpy(self.known), "changes": changes, "memory": memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``state_dict`` returned, for weights of this layout."""
        self.known, self.round = state["known"].numpy().copy(), state["round"]
        self._payloads = {int(round): payload for round, payload in state["changes"].items()}
        memory = {k: v.numpy().copy() if isinstance(v, Tensor) else v for k, v in state["memory"].items()}
        self._state = ClientState.from_dict(memory)


WEIGHTS, ROUND = "weights", "round"
"""The names of a receiver's two arrays."""


def follow(state: ClientState, payloads: Iterable[bytes], hash: bytes, layout: Layout) -> None:
    """Add to the weights in a receiver's ``state`` the changes that it has not seen yet.

    Raises:
        PayloadError: a payload that cannot be trusted.
        MissedChange: the changes do not fit the weights in ``state``, which stays as it was.
    """
    if WEIGHTS not in state.memory:
        raise MissedChange("changes of the global weights for a client that holds none")
    weights, round = np.array(state.memory[WEIGHTS]), int(state.memory[ROUND][0])
    for change in sorted((decode(payload, layout) for payload in payloads), key=lambda c: c.round):
        if change.round > round:  # earlier changes came with a message whose reply was lost
            change.add_to(weights)
            round = change.round
    if digest(weights) != hash:
        raise MissedChange(f"the global weights of round {round} differ from the server's")
    keep(state, weights, round)


def keep(state: ClientState, weights: np.ndarray, round: int) -> None:
    """Put whole weights of a round into a receiver's state."""
    state.memory[WEIGHTS], state.memory[ROUND] = weights, np.array([round], np.float32)
