"""The server sends its whole weights, or compressed changes of the weights that clients hold.

Tang, Yu, Lian, Zhang and Liu, "DoubleSqueeze", ICML 2019 (compression both ways, error feedback on the server);
Philippenko and Dieuleveut, "Preserved central model for faster bidirectional compression", NeurIPS 2021 (MCM): the
server keeps its exact weights w, and the weights v that clients can hold. The server sends C(w - v), and both sides add
C(w - v) to v. The next difference contains what C left out of this one: that is the error feedback.
"""

from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.engine.records import payload_array
from fedsparse.seeds import derive_seed
from fedsparse.vector import Layout, digest


class Downlink:
    """Keeps the changes of the last rounds, and sends a client the shorter of missing changes and whole weights.

    Attributes:
        round: the round of the weights v.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.round = 0
        self._layout: Layout | None = None
        self._known: np.ndarray | None = None  # v: float32, shape (layout.size,)
        self._changes: dict[int, bytes] = {}  # round -> the payload that made its v from the v before

    def advance(self, weights: Tensor, layout: Layout, round: int) -> Tensor:
        """The weights v that clients of ``round`` train from, given the server's: float32, shape ``(layout.size,)``.

        A second call for a round returns the same v. After a change of the layout, for instance by a new topology,
        every client is sent the whole weights once.

        Raises:
            NonFiniteError: NaN or infinity in the weights.
        """
        if self.config.downlink_is_whole:
            return weights
        if self._layout is None or self._known is None or layout.fingerprint != self._layout.fingerprint:
            self._begin(layout, weights.numpy().copy())
        elif round > self.round:
            seed = derive_seed(self.config.seed, "compress", round=round, partition_id=self.config.clients)
            payload, _ = self._codec.encode(weights.numpy() - self._known, self._state, round=round, seed=seed)
            self._codec.decode(payload).add_to(self._known)
            self._changes[round] = payload
            while sum(map(len, self._changes.values())) > 4 * self._layout.size:  # beyond, whole weights are shorter
                del self._changes[min(self._changes)]
        self.round = round
        return torch.from_numpy(self._known)

    def state_dict(self) -> dict[str, Any]:
        """The weights v, the changes that led to them, and the memory of their compressor."""
        if self._known is None:
            return {}
        memory = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in self._state.to_dict().items()}
        changes = {str(round): payload for round, payload in self._changes.items()}
        return {"round": self.round, "known": torch.from_numpy(self._known), "changes": changes, "memory": memory}

    def load_state_dict(self, state: dict[str, Any], layout: Layout) -> None:
        """Restore a state that ``state_dict`` returned, for weights of this layout."""
        if not state:
            return
        self._begin(layout, state["known"].numpy().copy())
        self.round = state["round"]
        self._changes = {int(round): payload for round, payload in state["changes"].items()}
        memory = {k: v.numpy().copy() if isinstance(v, Tensor) else v for k, v in state["memory"].items()}
        self._state = ClientState.from_dict(memory)

    def _begin(self, layout: Layout, known: np.ndarray) -> None:
        self._layout, self._known, self._changes = layout, known, {}
        self._codec, self._state = UpdateCodec(layout, **self.config.downlink_compression()), ClientState()

    def arrays_for(self, held: int, whole: ArrayRecord) -> ArrayRecord:
        """The arrays from which a client learns v: the changes since the weights of round ``held``, or ``whole``.

        Args:
            held: the round of the weights that the client surely holds; 0 when the server cannot know it.
        """
        layout = self._layout
        if layout is None or self._known is None or not held:
            return whole
        missing = {r: payload for r, payload in self._changes.items() if r > held}
        length = sum(map(len, missing.values())) + 8
        if len(missing) < self.round - held or length >= sum(len(array.data) for array in whole.values()):
            return whole
        arrays = {f"change-{r}": payload_array(payload, layout) for r, payload in missing.items()}
        return ArrayRecord(arrays | {"hash": Array("uint64", (), "little-endian", digest(self._known))})
