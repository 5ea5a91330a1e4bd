"""From an update to a payload, and what a client remembers of the rest.

Selection, value coding, index coding and error feedback are four independent choices, made here once for all clients.
"""

import math
import time
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression import wire
from fedsparse.compression.budgets import by_energy, proportional
from fedsparse.compression.client_state import Array, ClientState, beside, joined, norm, squares, to_numpy
from fedsparse.compression.dgc import DGC, warmup_density
from fedsparse.compression.gaussian import Gaussian
from fedsparse.compression.hggtopk import HGGTopK
from fedsparse.compression.lowrank import LowRank
from fedsparse.compression.matrices import Factorization, code_matrices
from fedsparse.compression.none import NoSelection
from fedsparse.compression.powersgd import PowerSGD
from fedsparse.compression.randomk import RandomK
from fedsparse.compression.redsync import RedSync
from fedsparse.compression.selection import Part, Selected, Selection, accumulate
from fedsparse.compression.threshold import Threshold
from fedsparse.compression.topk import TopK
from fedsparse.compression.values import VALUES, to_bf16, widened
from fedsparse.vector import Layout

SELECTIONS: dict[str, type[Selection]] = {
    "none": NoSelection,
    "topk": TopK,
    "hggtopk": HGGTopK,
    "dgc": DGC,
    "randomk": RandomK,
    "threshold": Threshold,
    "gaussian": Gaussian,
    "redsync": RedSync,
}
"""Compressors that select coordinates, by name. To add one: its file, and a line here."""

FACTORIZATIONS: dict[str, type[Factorization]] = {"lowrank": LowRank, "powersgd": PowerSGD}
"""Compressors that factor layers."""

COMPRESSORS = (*SELECTIONS, *FACTORIZATIONS)

UNBIASED = ("none", "randomk")
"""Selections that, multiplied by size / k, are on average the update itself."""


class NonFiniteError(ValueError):
    """An update with NaN or infinity; ``layer`` is the first tensor that has one."""

    def __init__(self, layer: str) -> None:
        super().__init__(f"update of layer {layer!r} has NaN or infinity")
        self.layer = layer


class UpdateCodec:
    """Encodes the updates of one layout. It holds no client's memory: one codec serves all clients.

    Args:
        layout: of the model. Parameters are compressed; the buffers after them travel dense, in float32.
        compressor: a name in ``COMPRESSORS``.
        density: share of the parameters that is sent, in (0, 1].
        scope: ``global`` selects from all parameters together, ``layer`` from each tensor on its own; value codings
            with scales have one for all, or for each tensor. Either scope keeps at least one coordinate of each: with
            ``layer`` a bias of ten at density 0.01 sends one, which costs bytes, but no layer starves; the density in
            ``encode``'s stats is the true one.
        budget: with scope ``layer``, what a layer may send: ``proportional`` to its size, or to its ``energy``, the
            squared norm of its part of update and residual.
        values: a name in ``VALUES``.
        error_feedback: what is not sent, or lost by value coding, is added to the client's next update. Where nothing
            can be lost (``none`` with ``f32``) no residual is kept, and a payload that never arrived is forgotten.
        unbiased: make the expectation of what is sent over the seed the update itself: values are rounded at random,
            randomk's multiplied by size / k. Not with error feedback, which would feed that noise back.
        residual_dtype: ``f32``, or ``bf16`` for half the memory, rounded at random: a sum of many small updates rounded
            to the nearest would stand still.
        residual_decay: factor on the residual for every round that the client missed: what it did not send then was
            for a model that has moved on. 1 is error feedback as the papers prove it; less discards mass for good, most
            of it where clients are seldom sampled (at 0.88, nine missed rounds leave a third).
        warmup_rounds: rounds over which the density falls exponentially to ``density``; 0 for none.
        options: the compressor's own arguments.
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
        residual_decay: float = 1.0,
        **options: object,
    ) -> None:
        for name, chosen, allowed in (
            ("compressor", compressor, COMPRESSORS),
            ("values", values, VALUES),
            ("scope", scope, ("global", "layer")),
            ("budget", budget, ("proportional", "energy")),
            ("residual_dtype", residual_dtype, ("f32", "bf16")),
        ):
            if chosen not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {chosen!r}")
        if not 0 < density <= 1:
            raise ValueError(f"density must be in (0, 1], not {density}")
        if not 0 <= residual_decay <= 1:
            raise ValueError(f"residual_decay must be in [0, 1], not {residual_decay}")
        self.layout, self.density, self.warmup_rounds = layout, density, warmup_rounds
        self.selection = SELECTIONS[compressor](**options) if compressor in SELECTIONS else None
        self.factorization = FACTORIZATIONS[compressor](**options) if compressor in FACTORIZATIONS else None
        self.values, self.by_layer, self.by_energy = VALUES[values], scope == "layer", budget == "energy"
        self.residual_dtype, self.residual_decay = residual_dtype, residual_decay
        self.error_feedback = error_feedback and not (compressor == "none" and values == "f32")
        self.unbiased = unbiased
        if unbiased and error_feedback:
            raise ValueError("unbiased rounding and error feedback exclude each other")
        if unbiased and (compressor not in UNBIASED or not self.values.unbiased):
            able = ", ".join(name for name, codec in VALUES.items() if codec.unbiased)
            raise ValueError(f"{compressor} with values {values} is never unbiased: none and randomk are, with {able}")
        if self.factorization and not self.values.fine:
            able = ", ".join(name for name, codec in VALUES.items() if codec.fine)
            raise ValueError(
                f"{compressor} sends factors, for which {values} is too coarse: values must be one of {able}"
            )
        ends = [e.start + e.size for e in layout.layers] if self.by_layer else [layout.parameters]
        self.ranges = [(a, b) for a, b in zip([0, *ends], ends, strict=False) if b > a]

    def encode(
        self, update: Tensor | np.ndarray, state: ClientState, *, round: int, seed: int
    ) -> tuple[bytes, dict[str, float]]:
        """Compresses one client's update.

        Args:
            update: shape ``(layout.size,)``, any floating dtype (float32 is not copied), CPU or device; not changed.
            state: of this client; its residual and memory advance, and with error feedback the payload stays in it
                until :meth:`settle`.
            round: the server's round, from 1.
            seed: of this round and client, 0 to 2^64 - 1; all randomness comes from it.

        Returns:
            The payload, and ``density`` (kept share of the parameters), ``threshold`` (smallest magnitude sent),
            ``residual_norm`` (L2), ``compress_seconds``, ``encode_seconds``.

        Raises:
            NonFiniteError: NaN or infinity in the update; ``state`` is as before. Also where the residual makes a sum
                overflow; ``state`` is spoiled then.
            ValueError: a wrong shape or seed, or a payload in ``state`` that was not settled.
        """
        began = time.perf_counter()
        vector = self._checked(update, state, seed)
        parameters, buffers = vector[: self.layout.parameters], vector[self.layout.parameters :]
        self._prepare(parameters, state, round)
        segments: list[wire.Coded] = []
        stats = {"density": 1.0, "threshold": 0.0, "residual_norm": 0.0}
        if len(parameters):
            if self.factorization:
                segments, stats = self._factor(self.factorization, parameters, state, round, seed)
            elif self.selection:
                selected = self.selection.select(parameters, state, self._parts(parameters, state, round), round, seed)
                segments, stats = self._code(selected, state, seed)
        compressed = time.perf_counter()
        if len(buffers):
            dense = VALUES["f32"]
            body = dense.encode(to_numpy(buffers), np.array([len(buffers)]), seed)
            segments.append(wire.Coded(len(buffers), None, dense, body))
        payload = wire.encode(self.layout, round, segments)
        if self.error_feedback:  # without it nothing is ever put back: spare the client a dense payload in its state
            state.payload, state.sent_round = payload, round
            if self.residual_dtype == "bf16" and state.residual is not None:
                state.residual = to_bf16(to_numpy(state.residual), seed)
        stats |= {"compress_seconds": compressed - began, "encode_seconds": time.perf_counter() - compressed}
        return payload, stats

    def decode(self, payload: bytes) -> wire.SparseUpdate:
        """:func:`wire.decode` for this layout."""
        return wire.decode(payload, self.layout)

    def settle(self, state: ClientState, accepted_round: int | None) -> None:
        """Acknowledges the last payload, or takes it back. Call it before every :meth:`encode`; twice changes nothing.

        Args:
            state: of the client.
            accepted_round: the last round whose payload the server accepted from this client; None for never. When it
                is before the round of the payload in ``state``, what that carried returns to the residual (if there is
                error feedback; a selection's momentum stays as it is), so that a lost payload
                loses nothing. Missed rounds do: see ``residual_decay``.
        """
        if state.payload and (accepted_round or 0) < state.sent_round and self.error_feedback:
            state.residual = put_back(state.residual, self.decode(state.payload))
        state.payload = b""

    def _checked(self, update: Tensor | np.ndarray, state: ClientState, seed: int) -> Array:
        """The update as a flat, finite float32 vector: NumPy on the CPU, torch on a device."""
        if state.payload:
            raise ValueError(f"the payload of round {state.sent_round} was not settled")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must be in [0, 2^64), not {seed}")
        if tuple(update.shape) != (self.layout.size,):
            raise ValueError(f"update of shape {tuple(update.shape)}, not ({self.layout.size},)")
        vector: Array
        if isinstance(update, Tensor) and update.device.type != "cpu":
            vector = update.detach().to(torch.float32).contiguous()
        else:
            array = update.detach().to(torch.float32).numpy() if isinstance(update, Tensor) else update
            with np.errstate(over="ignore"):
                vector = np.ascontiguousarray(array, np.float32)
        # Before the residual is touched, in one read: a sum of squares is finite only where all of it is. It may also
        # overflow for huge finite values, so failing it only asks for the close look.
        if not math.isfinite(squares(vector)):
            self._refuse_non_finite(vector)
        return vector

    def _refuse_non_finite(self, vector: Array) -> None:
        for e in self.layout.entries:
            if not np.isfinite(to_numpy(vector[e.slice])).all():
                raise NonFiniteError(e.name)

    def _prepare(self, parameters: Array, state: ClientState, round: int) -> None:
        """Gives ``state`` a residual that is there, of the right size, where the update is, and decayed."""
        if not self.error_feedback:
            state.residual = None
        elif state.residual is None:
            state.residual = beside(np.zeros(len(parameters), np.float32), parameters)
        elif len(state.residual) != len(parameters):
            raise ValueError(f"residual of {len(state.residual)} elements for {len(parameters)} parameters")
        else:
            state.residual = beside(widened(state.residual), parameters)
            missed = round - state.sent_round - 1
            if self.residual_decay < 1 and missed > 0:
                state.residual = state.residual * self.residual_decay**missed

    def _parts(self, parameters: Array, state: ClientState, round: int) -> list[Part]:
        density, sizes = self._density(round), np.array([b - a for a, b in self.ranges])
        if self.by_energy:
            energies = [
                squares(parameters[a:b] if state.residual is None else parameters[a:b] + state.residual[a:b])
                for a, b in self.ranges
            ]
            counts = by_energy(sizes, np.array(energies), density)
        else:
            counts = proportional(sizes, density)
        return [Part(a, b, k) for (a, b), k in zip(self.ranges, counts.tolist(), strict=True)]

    def _density(self, round: int) -> float:
        return warmup_density(self.density, round, self.warmup_rounds)

    def _factor(
        self, method: Factorization, parameters: Array, state: ClientState, round: int, seed: int
    ) -> tuple[list[wire.Coded], dict[str, float]]:
        """Codes the layers as factors, and leaves in the residual what those do not hold."""
        vector, density = accumulate(parameters, state), self._density(round)
        if not math.isfinite(norm(vector)):
            self._refuse_non_finite(vector)
        segments, received, numbers = code_matrices(method, self.layout, vector, density, self.values, state, seed)
        if state.residual is not None:
            state.residual -= beside(received, vector)
        left = 0.0 if state.residual is None else norm(state.residual)
        if not math.isfinite(left) or not np.isfinite(received).all():
            self._refuse_non_finite(beside(received, vector))
        return segments, {"density": numbers / self.layout.parameters, "threshold": 0.0, "residual_norm": left}

    def _code(self, selected: Selected, state: ClientState, seed: int) -> tuple[list[wire.Coded], dict[str, float]]:
        """Codes the selected values, and leaves in the residual what was not sent."""
        vector = selected.vector
        if selected.indices is None:
            sizes = [b - a for a, b in self.ranges]
            # A coding may return a view of its values, and the residual is about to change.
            chosen, indices = vector if state.residual is None else to_numpy(vector).copy(), None
        else:
            sizes = [len(i) for i in selected.indices]
            at = joined(selected.indices)
            chosen, indices = vector[at], to_numpy(at)
        counts, values = np.array(sizes), to_numpy(chosen)
        threshold = 0.0 if indices is None or not values.size else float(np.abs(values).min())
        if self.unbiased and indices is not None:
            values = values * np.repeat(np.array([b - a for a, b in self.ranges]) / counts, counts).astype(np.float32)
        body = self.values.encode(values, counts, seed, self.unbiased)
        if state.residual is not None:
            left = values - self.values.decode(memoryview(body), counts)
            residual: Any = state.residual  # NumPy or torch: the same line for both
            residual[slice(None) if indices is None else at] = beside(left, vector)
        left_norm = 0.0 if state.residual is None else norm(state.residual)
        # What was not added to was checked already.
        if values is not vector and not (math.isfinite(left_norm) and np.isfinite(values).all()):
            self._refuse_non_finite(vector)
        stats = {"density": values.size / self.layout.parameters, "threshold": threshold, "residual_norm": left_norm}
        drawn = seed if selected.seeded else None
        return [wire.Coded(self.layout.parameters, indices, self.values, body, self.by_layer, drawn)], stats


def put_back(residual: Array | None, sent: wire.SparseUpdate) -> Array:
    """The residual, float32, with the parameters of ``sent`` added."""
    size = sent.layout.parameters
    total: Any = np.zeros(size, np.float32) if residual is None else deepcopy(widened(residual))
    for s in sent.segments:
        if s.start < size:
            at = slice(None) if s.indices is None else beside(s.indices, total)
            total[s.start : s.start + s.size][at] += beside(s.values, total)
    return total
