"""Encodes an update into a payload, and keeps what the payload loses in the client's state.

Selection, value coding, index coding and error feedback are four independent choices, made here once for all clients.
"""

import time
from typing import Any

import numpy as np
from torch import Tensor

from fedsparse.catalogue import COMPRESSORS, VALUES
from fedsparse.compression import wire
from fedsparse.compression.arrays import Array, as_vector, concatenated, sum_of_squares, to_numpy
from fedsparse.compression.budgets import by_energy, parts_of, proportional, warmup_density
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.compressors import build_compressor, checked_indices
from fedsparse.compression.error_feedback import ErrorFeedback
from fedsparse.compression.finite import finite_norm
from fedsparse.compression.matrices import code_matrices
from fedsparse.compression.none import NoSelection
from fedsparse.compression.selection import Indices, Part, accumulate
from fedsparse.compression.sparse_update import SparseUpdate
from fedsparse.compression.values import ELEMENTWISE, F32, value_codec
from fedsparse.compression.zero_rows import code_without_zero_rows
from fedsparse.config.presets import check_parts
from fedsparse.vector import Layout


class UpdateCodec:
    """Encodes the updates of one layout. One codec serves all clients, because it holds no client's state.

    Args:
        layout: of the model. Parameters are compressed; the buffers after them travel dense, in float32.
        compressor: a name in ``catalogue.COMPRESSORS``, or the user's own class as ``module:Class`` or
            ``path/to/file.py:Class``: see ``Selection``, ``FusedSelection`` and ``Factorization``.
        density: share of the parameters that is sent, in (0, 1].
        scope: ``global`` selects from all parameters together, ``layer`` from each entry on its own, ``chunk`` from
            each 4096 coordinates of an entry. Value codings with scales have one scale for all, or with ``layer`` one
            for each entry. Each part sends at least one coordinate, so that with ``layer`` a bias of ten elements sends
            one at density 0.01 too. The stats of :meth:`encode` have the true density.
        budget: with scope ``layer``, how many coordinates an entry may send: ``proportional`` to its size, or to its
            ``energy``, the squared norm of its part of update plus residual.
        values: a name in ``catalogue.VALUES``.
        error_feedback: what is not sent, or is lost by value coding, is added to the client's next update. Where
            nothing can be lost (``none`` with ``f32``) no residual is kept, and a payload that never arrives is lost.
        unbiased: make the expectation of what is sent, over the seed, the update itself: values are rounded at random,
            and those of randomk multiplied by size / k. Not with error feedback, which would feed that noise back.
        residual_dtype: ``f32``, or ``bf16`` for half the memory. It is rounded at random, because a sum of many small
            updates rounded to the nearest would stand still.
        feedback_decay: factor on the residual whenever an update is added to it; 1 for error feedback as it is proved.
        residual_decay: factor on the residual for every round that the client missed, because its rest was for a model
            that has moved on. 1 is error feedback as the papers prove it. A smaller factor discards mass for good, most
            of it where clients are seldom sampled (at 0.88, nine missed rounds leave a third).
        warmup_rounds: rounds at densities that fall exponentially, before those at ``density``; 0 for none.
        options: the compressor's own arguments.

    Raises:
        ValueError: a wrong argument, or arguments that do not fit together.
    """

    def __init__(
        self,
        layout: Layout,
        compressor: str = "hggtopk",
        density: float = 0.01,
        scope: str = "global",
        values: str = "f32",
        error_feedback: bool = True,
        unbiased: bool = False,
        warmup_rounds: int = 0,
        budget: str = "proportional",
        residual_dtype: str = "f32",
        feedback_decay: float = 1.0,
        residual_decay: float = 1.0,
        **options: object,
    ) -> None:
        for name, chosen, allowed in (
            ("values", values, VALUES),
            ("scope", scope, ("global", "layer", "chunk")),
            ("budget", budget, ("proportional", "energy")),
            ("residual_dtype", residual_dtype, ("f32", "bf16")),
        ):
            if chosen not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {chosen!r}")
        if not 0 < density <= 1:
            raise ValueError(f"density must be in (0, 1], not {density}")
        if not 0 <= residual_decay <= 1:
            raise ValueError(f"residual_decay must be in [0, 1], not {residual_decay}")
        check_parts(compressor, values, error_feedback, unbiased)
        method = build_compressor(compressor, options)
        self.factorization = method if hasattr(method, "factor") else None
        self.selection: Any = NoSelection() if self.factorization else method
        self.is_fused = hasattr(self.selection, "select")
        self.compressor, self.values, self.unbiased = compressor, value_codec(values), unbiased
        self.layout, self.density, self.warmup_rounds = layout, density, warmup_rounds
        self.grouping, self.by_energy = wire.BY_LAYER if scope == "layer" else wire.WHOLE, budget == "energy"
        loses = not (compressor == "none" and values == "f32")
        self.feedback = ErrorFeedback(layout, error_feedback and loses, residual_dtype, feedback_decay, residual_decay)
        self.by_chunk, self.ranges = scope == "chunk", parts_of(layout, scope)

    def encode(
        self,
        update: Tensor | np.ndarray,
        state: ClientState,
        *,
        round: int,
        seed: int,
        support: int | None = None,
        density: float | None = None,
    ) -> tuple[bytes, dict[str, float]]:
        """Compresses one client's update.

        Args:
            update: shape ``(layout.size,)``, any floating dtype (float32 is not copied), CPU or device; not changed.
            state: of this client; its residual and memory advance, and with error feedback it holds the payload until
                :meth:`settle`.
            round: the server's round, from 1.
            seed: of this round and client, 0 to 2^64 - 1; all randomness comes from it.
            support: the seed of a selection at random, of the same range, in place of ``seed``: clients with the same
                one send the same coordinates, while each rounds its values by its own ``seed``.
            density: of this update, in place of the codec's.

        Returns:
            The payload, and ``density`` (kept share of the parameters), ``threshold`` (smallest magnitude sent),
            ``threshold_error`` (``|selected - k| / k``, with k the number of coordinates that the density asks for;
            only where a selection goes by the density), ``residual_norm`` (L2), ``compress_seconds``,
            ``encode_seconds``.

        Raises:
            NonFiniteError: the update has NaN or infinity (``state`` is unchanged), or its sum with the residual
                overflows (``state`` must not be used again).
            ValueError: a wrong shape or seed, a payload in ``state`` that was not settled, or indices of the user's own
                compressor that break its contract.
        """
        began = time.perf_counter()
        support = seed if support is None else support
        flat, n = self._checked(update, state, seed, support), self.layout.parameters
        density = density or warmup_density(self.density, round, self.warmup_rounds)
        self.feedback.prepare(state, flat[:n], round)
        vector, indices = self._accumulate_and_select(flat[:n], state, density, round, support)
        segments, selected = self._code(vector, indices, state.memory, density, seed, support)
        buffers = [wire.Coded.dense(to_numpy(flat[n:]), F32())] if n < len(flat) else []
        coded = time.perf_counter()
        payload = wire.encode(self.layout, round, segments + buffers)
        encode_seconds = time.perf_counter() - coded
        # Last, because segments may hold views of the residual.
        residual_norm = self.feedback.keep_rest(state, segments, of_factors=bool(self.factorization))
        self.feedback.keep_payload(state, payload, round, seed)
        sent = sum(int(segment.counts.sum()) for segment in segments)
        return payload, {
            "density": sent / n if n else 1.0,
            **selected,
            "residual_norm": residual_norm,
            "compress_seconds": time.perf_counter() - began - encode_seconds,
            "encode_seconds": encode_seconds,
        }

    def decode(self, payload: bytes) -> SparseUpdate:
        """:func:`wire.decode` for this layout."""
        return wire.decode(payload, self.layout)

    def settle(self, state: ClientState, accepted_round: int | None) -> None:
        """Acknowledges the last payload, or takes it back. Call it before every :meth:`encode`; repetition is harmless.

        Args:
            state: of the client.
            accepted_round: the last round whose payload the server accepted from this client; None for never. When
                this is before the round of the payload in ``state``, that payload was lost, and with error feedback its
                values return to the residual. The momentum of a selection stays as it is.
        """
        self.feedback.settle(state, accepted_round)

    def _accumulate_and_select(
        self, update: Array, state: ClientState, density: float, round: int, seed: int
    ) -> tuple[Array, Indices]:
        """The sum of residual and update (``state.residual`` becomes this sum), and its coordinates that travel."""
        parts = self._parts(update, state, density)
        if self.is_fused:
            vector, indices = self.selection.select(update, state, parts, round, seed)
        else:
            vector = accumulate(update, state)
            indices = self.selection.indices(vector, parts, state.memory, seed)
        if self.compressor not in COMPRESSORS:
            indices = checked_indices(self.compressor, vector, indices, parts)
        return vector, indices

    def _code(
        self, vector: Array, indices: Indices, memory: dict[str, Array], density: float, seed: int, support: int
    ) -> tuple[list[wire.Coded], dict[str, float]]:
        """The segments of the parameters, with ``threshold`` and ``threshold_error`` as :meth:`encode` tells them."""
        if self.factorization:
            finite_norm(self.layout, vector)
            return code_matrices(self.factorization, self.layout, vector, density, self.values, memory, seed), {
                "threshold": 0.0
            }
        if not self.ranges:
            return [], {"threshold": 0.0}
        sizes = np.array([b - a for a, b in self.ranges])
        at, counts, values, selected = None, sizes, to_numpy(vector), {"threshold": 0.0}
        if indices is not None:
            chosen = concatenated(indices)
            at, counts, values = to_numpy(chosen), np.array([len(i) for i in indices]), to_numpy(vector[chosen])
            selected["threshold"] = float(np.abs(values).min()) if values.size else 0.0
            if getattr(self.selection, "goes_by_density", True):
                k = int(proportional(sizes, density).sum())
                selected["threshold_error"] = abs(int(counts.sum()) - k) / k
            if self.unbiased:
                values = values * np.repeat(sizes / counts, counts).astype(np.float32)
            finite_norm(self.layout, values, at)
        if self.by_chunk:
            counts = np.array([counts.sum()])
        if at is None and isinstance(self.values, ELEMENTWISE) and not self.unbiased:
            return code_without_zero_rows(self.layout, values, self.values, seed), selected
        body = self.values.encode(values, counts, seed, self.unbiased)
        drawn = support if getattr(self.selection, "seeded", False) and not self.by_chunk else None
        return [wire.Coded(len(vector), at, self.values, body, counts, self.grouping, drawn)], selected

    def _checked(self, update: Tensor | np.ndarray, state: ClientState, *seeds: int) -> Array:
        """The update as a flat, finite float32 vector."""
        if state.payload:
            raise ValueError(f"the payload of round {state.sent_round} was not settled")
        for seed in seeds:
            if not 0 <= seed < 1 << 64:
                raise ValueError(f"seed must be in [0, 2^64), not {seed}")
        if tuple(update.shape) != (self.layout.size,):
            raise ValueError(f"update of shape {tuple(update.shape)}, not ({self.layout.size},)")
        vector = as_vector(update)
        finite_norm(self.layout, vector)
        return vector

    def _parts(self, update: Array, state: ClientState, density: float) -> list[Part]:
        """The ranges to select from, each with its number of coordinates to keep."""
        sizes = np.array([b - a for a, b in self.ranges])
        counts = proportional(sizes, density)
        if self.by_energy:
            residual = state.residual
            sums = (update[a:b] if residual is None else update[a:b] + residual[a:b] for a, b in self.ranges)
            counts = by_energy(sizes, np.array([sum_of_squares(part) for part in sums]), density)
        return [Part(a, b, k) for (a, b), k in zip(self.ranges, counts.tolist(), strict=True)]
