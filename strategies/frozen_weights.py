"""The server's side of the weights beside adapters, which are not trained: each client gets them once.

With ``lowrank-average = residual`` the server adds something to them after each round. A client then gets what was
added since it was last asked, or all of them where that is shorter.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.changes import Changes
from fedsparse.compression.matrices import code_products
from fedsparse.engine.records import payload_array
from fedsparse.lowrank.frozen import Frozen
from fedsparse.strategies.downlink import changes_since


class FrozenWeights:
    """The frozen weights of a run, and what was added to them.

    Args:
        frozen: those of the server's model, which follow.

    Attributes:
        first: the hash of the weights at the beginning of the run, in hexadecimal.
    """

    def __init__(self, frozen: Frozen) -> None:
        self._frozen, self._whole = frozen, ArrayRecord()
        self._changes = Changes(frozen.layout, frozen.vector.numpy(), 1, {"compressor": "none"})
        self.first = self.hash

    @property
    def hash(self) -> str:
        """The hash of the present weights, in hexadecimal."""
        return self._changes.hash.hex()

    @property
    def edition(self) -> int:
        """The number of the present weights: 1, and 1 more after each addition."""
        return self._changes.round

    @property
    def added_to(self) -> list[np.ndarray]:
        """The present weights, float32 of shape ``(layout.size,)``, once they differ from the first."""
        return [self._changes.known] if self.edition > 1 else []

    def add(self, products: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add products ``P Q^T`` to some of the weights; see ``code_products``.

        Raises:
            PayloadError: a value of a product is not finite.
        """
        payload = code_products(self._frozen.layout, products, self.edition + 1)
        self._changes.add(payload, self.edition + 1)
        self._let_the_model_follow()

    def _let_the_model_follow(self) -> None:
        self._whole = ArrayRecord()
        self._frozen.load(torch.from_numpy(self._changes.known))

    def arrays_for(self, held: int) -> ArrayRecord | None:
        """What a client is sent that surely holds the edition ``held``; 0 where it may hold none."""
        if held == self.edition:
            return None
        return changes_since(held, self._changes) or self.whole

    @property
    def whole(self) -> ArrayRecord:
        """All frozen weights; made once for an edition."""
        if not self._whole:
            layout, known = self._frozen.layout, self._changes.known
            payload, _ = UpdateCodec(layout, "none").encode(known, ClientState(), round=self.edition, seed=0)
            self._whole = ArrayRecord({"weights": payload_array(payload, layout)})
        return self._whole

    def state_dict(self) -> dict[str, Any]:
        """The additions and the weights that they led to; empty before the first."""
        return self._changes.state_dict() if self.edition > 1 else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that ``state_dict`` returned."""
        if state:
            self._changes.load_state_dict(state)
            self._let_the_model_follow()
