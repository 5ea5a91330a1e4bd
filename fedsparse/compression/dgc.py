"""Deep gradient compression: top-k over accumulated momentum instead of accumulated updates.

Lin, Han, Mao, Wang and Dally, "Deep Gradient Compression", ICLR 2018. Section 3.1: sampled, hierarchical threshold;
3.2: momentum correction and local clipping; 3.3: momentum factor masking. The warm-up of the density (section 3.3) is
open to every compressor: see ``budgets.py``. The paper selects from each tensor, as ``--scope layer`` does; the default
here is the whole update.
"""

import numpy as np
import torch

from fedsparse.compression.arrays import Array, on_same_device
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.hggtopk import HGGTopK
from fedsparse.compression.selection import Indices, Part


class DGC:
    """Adds each client's momentum to its residual instead of its update, and sends the largest magnitudes of the sum.

    The paper finds these by a hierarchical threshold (a threshold from a sample, then top-k among the magnitudes that
    reach it). hggtopk selects here, because it works in this way and is exact.

    A client of a federation misses many rounds, so that its momentum becomes stale. Here each missed round counts as a
    round with an update of zero, which multiplies the momentum by the factor ``momentum``; when every client takes part
    in every round, this is the paper's method. An update is the sum of local steps, and clipping applies to this sum.

    A lost payload returns to the residual alone. The momentum of its coordinates stays cleared, because the payload
    holds that momentum.

    Args:
        momentum: decay of a client's momentum a round, in [0, 1).
        clipping: the largest L2 norm of an update before it is added to the momentum; None for no limit. The paper
            divides the global threshold by the root of the number of clients.
    """

    def __init__(self, momentum: float = 0.9, clipping: float | None = None) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if clipping is not None and clipping <= 0:
            raise ValueError(f"clipping must be above 0, not {clipping}")
        self.momentum, self.clipping = momentum, clipping
        self.largest = HGGTopK()

    def select(
        self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int
    ) -> tuple[Array, Indices]:
        """See :meth:`FusedSelection.select`."""
        velocity = self.advance(update, state, round)
        vector, indices = self.largest.select(velocity, state, parts, round, seed)
        if vector is velocity:  # happens without error feedback; masking must not clear the values to send
            vector = velocity.copy() if isinstance(velocity, np.ndarray) else velocity.clone()
        for chosen in indices or ():
            velocity[chosen] = 0
        return vector, indices

    def advance(self, update: Array, state: ClientState, round: int) -> Array:
        """Replaces the momentum in ``state`` by decay * momentum + clipped update, and returns it."""
        factor = 1.0
        if self.clipping is not None:
            norm = float(np.linalg.norm(update) if isinstance(update, np.ndarray) else torch.linalg.vector_norm(update))
            factor = min(1.0, self.clipping / norm) if norm > 0 else 1.0
        old = state.memory.get("momentum")
        if old is None:
            velocity = update * factor
        else:
            absent = round - int(state.memory["momentum_round"][0])
            velocity = on_same_device(old, update) * self.momentum ** max(1, absent) + update * factor
        state.memory["momentum"] = velocity
        state.memory["momentum_round"] = np.array([round], np.float32)
        return velocity
