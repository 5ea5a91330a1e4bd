"""A sparse model as a short vector that holds only the weights that exist, in the order of the flat vector.

The short vector has a layout of its own, so that compression, payloads, residuals and error feedback work on it as on
the flat vector of a dense model. Indices in a payload count only the weights that exist. The mask's hash is part of the
layout's fingerprint, so that a payload for another topology is refused. When every weight exists, the short vector is
the flat vector, with the same layout.
"""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.arrays import as_float32, to_numpy
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.sparse_update import Segment, SparseUpdate
from fedsparse.sparsity.topology import Topology
from fedsparse.vector import Entry, Layout


class Compact:
    """The short vector of one topology.

    Args:
        full: layout of the model.
        topology: of that model, on any device.

    Attributes:
        layout: of the short vector. An entry that lacks some weights is flat in it; an entry that lacks all weights is
            left out.
        positions: int64, shape ``(layout.size,)``: where each element stands in the flat vector, buffers included.
    """

    def __init__(self, full: Layout, topology: Topology) -> None:
        self.full, self.topology = full, topology
        self.layout = full if topology.mask.all() else self._layout()

    @cached_property  # made at first use: twice as large as the model, and a dense model seldom needs it
    def positions(self) -> Tensor:
        return self._kept().nonzero().squeeze(1)

    def _kept(self) -> Tensor:
        kept = torch.ones(self.full.size, dtype=torch.bool, device=self.topology.mask.device)
        kept[: self.full.parameters] = self.topology.mask
        return kept

    def _layout(self) -> Layout:
        kept = self._kept()
        counts = [int(kept[e.slice].sum()) for e in self.full.entries]
        entries, start = [], 0
        for entry, count in zip(self.full.entries, counts, strict=True):
            if count:
                shape, held = entry.shape, ()
                if count < entry.size:
                    shape, held = (count,), tuple(kept[entry.slice].view(entry.shape[0], -1).sum(1).tolist())
                entries.append(Entry(entry.name, shape, start, count, held=held))
                start += count
        return Layout(tuple(entries), sum(counts[: len(self.full.trainable)]), start, self.topology.hash)

    def gather(self, vector: Tensor) -> Tensor:
        """The short vector, shape ``(layout.size,)``, of a flat ``vector``, shape ``(full.size,)``."""
        return vector if self.layout is self.full else vector[self.positions]

    def scatter(self, update: SparseUpdate) -> SparseUpdate:
        """A decoded payload of the short layout, in the coordinates of the flat vector."""
        if self.layout is self.full:
            return update
        positions, segments = to_numpy(self.positions), []
        for s in update.segments:
            covered = positions[s.start : s.start + s.size]
            indices = covered if s.indices is None else covered[s.indices]
            segments.append(Segment(0, self.full.size, indices, s.values))
        return SparseUpdate(self.full, update.round, tuple(segments))

    @property
    def active(self) -> np.ndarray:
        """int64, shape ``(layout.parameters,)``: the ``positions`` of parameters, without those of buffers."""
        return to_numpy(self.positions[: self.layout.parameters])


def move_state(state: ClientState, old: Compact, new: Compact) -> None:
    """Move a client's state to another topology, in place: removed weights lose their values, grown weights get 0.

    A weight that was removed and grown again since the client's last turn keeps its value, because the client has not
    seen the masks between.

    Raises:
        ValueError: the state has a payload that was not settled.
    """
    if state.payload:
        raise ValueError(f"the payload of round {state.sent_round} was not settled")

    def moved(array: np.ndarray) -> np.ndarray:
        wide = np.zeros(old.full.parameters, np.float32)
        wide[old.active] = array
        return wide[new.active]

    if state.residual is not None:
        state.residual = moved(to_numpy(as_float32(state.residual)))
    for name, array in state.memory.items():
        if array.shape == (old.layout.parameters,):
            state.memory[name] = moved(to_numpy(array))
