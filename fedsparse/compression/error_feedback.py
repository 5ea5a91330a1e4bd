"""Error feedback: what a payload loses is added to the client's next update.

Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019, algorithm 2:
``sent + residual = update + old residual``.
"""

from copy import deepcopy

import numpy as np

from fedsparse.compression import wire
from fedsparse.compression.arrays import Array, as_float32, on_same_device, to_bf16, to_numpy
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.finite import finite_norm
from fedsparse.compression.sparse_update import add_segments
from fedsparse.vector import Layout


class ErrorFeedback:
    """What becomes of the rest of an update. One object serves all clients; each ``ClientState`` has its residual.

    Args:
        layout: of the updates.
        is_on: keep a residual.
        dtype, decay, missed_decay: ``residual_dtype``, ``feedback_decay`` and ``residual_decay`` of ``UpdateCodec``.
    """

    def __init__(self, layout: Layout, is_on: bool, dtype: str, decay: float, missed_decay: float) -> None:
        self.layout, self.is_on, self.dtype = layout, is_on, dtype
        self.decay, self.missed_decay = decay, missed_decay

    def prepare(self, state: ClientState, parameters: Array, round: int) -> None:
        """Make the residual in ``state`` decayed float32 on the device of the parameters; None without feedback."""
        if not self.is_on:
            state.residual = None
        elif state.residual is None:
            state.residual = on_same_device(np.zeros(len(parameters), np.float32), parameters)
        elif len(state.residual) != len(parameters):
            raise ValueError(f"residual of {len(state.residual)} elements for {len(parameters)} parameters")
        else:
            state.residual = on_same_device(as_float32(state.residual), parameters)
            decay = self.decay * self.missed_decay ** max(round - state.sent_round - 1, 0)
            if decay < 1:
                state.residual = state.residual * decay

    def keep_rest(self, state: ClientState, segments: list[wire.Coded], *, of_factors: bool) -> float:
        """Subtract what the server decodes from ``segments`` from the residual; returns the norm of the rest.

        Args:
            of_factors: whether the segments have factors. Their product may overflow, which shows here alone.

        Raises:
            NonFiniteError: the rest overflows.
        """
        if state.residual is None and not of_factors:
            return 0.0
        # Without error feedback, zeros take the residual's place, to find a product of factors that overflows.
        rest = np.zeros(self.layout.parameters, np.float32) if state.residual is None else state.residual
        add_segments(rest, wire.as_received(self.layout, segments), -1.0)
        rest_norm = finite_norm(self.layout, rest)
        return 0.0 if state.residual is None else rest_norm

    def keep_payload(self, state: ClientState, payload: bytes, round: int, seed: int) -> None:
        """Keep the payload, so that ``settle`` can put a lost one back."""
        if self.is_on:
            state.payload, state.sent_round = payload, round
            if self.dtype == "bf16" and state.residual is not None:
                state.residual = to_bf16(to_numpy(state.residual), seed)

    def settle(self, state: ClientState, accepted_round: int | None) -> None:
        """Forget the last payload; a lost one returns to the residual first. See ``UpdateCodec.settle``."""
        if state.payload and (accepted_round or 0) < state.sent_round and self.is_on:
            n, lost = self.layout.parameters, wire.decode(state.payload, self.layout)
            kept = np.zeros(n, np.float32) if state.residual is None else deepcopy(as_float32(state.residual))
            add_segments(kept, [s for s in lost.segments if s.start < n], 1.0)
            state.residual = kept
        state.payload = b""
