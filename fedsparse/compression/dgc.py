"""Deep gradient compression: top-k over accumulated momentum instead of accumulated updates.

Lin, Han, Mao, Wang and Dally, "Deep Gradient Compression", ICLR 2018. Section 3.1: sampled, hierarchical threshold;
3.2: momentum correction and local clipping; 3.3: momentum factor masking and the warm-up of the density.
"""

import numpy as np
import torch

from fedsparse.compression.client_state import Array, ClientState, beside
from fedsparse.compression.hggtopk import HGGTopK
from fedsparse.compression.selection import Part, Selected


class DGC:
    """Keeps a momentum of its updates, and sends the largest of what that momentum has added up to.

    The paper's hierarchical threshold (from a sample, then top-k among what passes it) is how hggtopk works, which
    makes it exact: it is used here as it is.

    In a federation a client is absent for many rounds, and its momentum then points where the model was long ago. The
    rounds it missed count as rounds with no update: the momentum shrinks by ``momentum`` for each, so that it is gone
    by the time it would mislead, and is the paper's where every client takes part in every round. An update here is the
    sum of local steps, so clipping applies to that sum.

    A lost payload goes back into the residual alone: the momentum of its coordinates stays cleared, as its velocity is
    in the residual already.

    Args:
        momentum: decay of a client's momentum a round, in [0, 1).
        clipping: the largest L2 norm of an update before it is accumulated; None leaves it. The paper divides the
            global threshold by the root of the number of clients.
    """

    def __init__(self, momentum: float = 0.9, clipping: float | None = None) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if clipping is not None and clipping <= 0:
            raise ValueError(f"clipping must be above 0, not {clipping}")
        self.momentum, self.clipping = momentum, clipping
        self.largest = HGGTopK()

    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        velocity = self.advance(update, state, round)
        vector, indices, _ = self.largest.select(velocity, state, parts, round, seed)
        if vector is velocity:  # no error feedback: what is sent is read after the masking below
            vector = velocity.copy() if isinstance(velocity, np.ndarray) else velocity.clone()
        for chosen in indices or ():
            velocity[chosen] = 0
        return Selected(vector, indices)

    def advance(self, update: Array, state: ClientState, round: int) -> Array:
        """momentum = decay * momentum + clipped update; returns it, as it stands in ``state``."""
        factor = 1.0
        if self.clipping is not None:
            norm = float(np.linalg.norm(update) if isinstance(update, np.ndarray) else torch.linalg.vector_norm(update))
            factor = min(1.0, self.clipping / norm) if norm > 0 else 1.0
        old = state.memory.get("momentum")
        if old is None:
            velocity = update * factor
        else:
            absent = round - int(state.memory["momentum_round"][0])
            velocity = beside(old, update) * self.momentum ** max(1, absent) + update * factor
        state.memory["momentum"] = velocity
        state.memory["momentum_round"] = np.array([round], np.float32)
        return velocity


def warmup_density(density: float, round: int, rounds: int) -> float:
    """The density of ``round`` (from 1), falling exponentially to ``density`` at round ``rounds`` (section 3.3).

    Four warm-up rounds to 0.001 give 0.18, 0.032, 0.0056, 0.001; the paper's fixed steps are 0.25, 0.063, 0.016, 0.004.
    """
    return density ** min(1.0, round / rounds) if rounds > 0 else density
