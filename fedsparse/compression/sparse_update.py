"""A decoded update: values for some coordinates of the flat vector, in segments."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.arrays import blocks
from fedsparse.vector import Layout


@dataclass(frozen=True)
class Segment:
    """float32 ``values`` for ``indices`` (sorted, counted from ``start``; None means all ``size`` coordinates).

    The indices are int64, but int32 where a client sends most coordinates of a model that is not sparse.
    """

    start: int
    size: int
    indices: np.ndarray | None
    values: np.ndarray

    @property
    def sum_of_squares(self) -> float:
        """Of the values, in float64, which float32 values never overflow."""
        wide = (self.values[block].astype(np.float64) for block in blocks(self.values.size))
        return sum(float(part @ part) for part in wide)


@dataclass(frozen=True)
class SparseUpdate:
    """A decoded payload: every check has passed, every value is finite."""

    layout: Layout
    round: int
    segments: tuple[Segment, ...]

    @property
    def sends_all(self) -> bool:
        """Whether the client sent every coordinate."""
        return all(segment.indices is None for segment in self.segments)

    def add_to(self, accumulator: np.ndarray | Tensor, weight: float = 1.0) -> None:
        """``accumulator += weight * update``, in the accumulator's precision.

        Args:
            accumulator: float32 or float64, shape ``(layout.size,)``; an array or a tensor on any device, in place.
            weight: a factor for every value.
        """
        add_segments(accumulator, self.segments, weight)

    def split(self) -> Iterator[tuple[bool, Segment]]:
        """The segments, each cut where the buffers begin, and whether a piece is of the buffers."""
        for s in self.segments:
            cut = self.layout.parameters - s.start
            if not 0 < cut < s.size:
                yield cut <= 0, s
                continue
            at = cut if s.indices is None else int(np.searchsorted(s.indices, cut))
            first, second = (None, None) if s.indices is None else (s.indices[:at], s.indices[at:] - cut)
            yield False, Segment(s.start, cut, first, s.values[:at])
            yield True, Segment(s.start + cut, s.size - cut, second, s.values[at:])

    def buffers(self) -> np.ndarray:
        """The changes of the buffers, float32; one that was not sent is 0."""
        n = self.layout.parameters
        changes = np.zeros(self.layout.size - n, np.float32)
        add_segments(changes, [replace(s, start=s.start - n) for is_buffer, s in self.split() if is_buffer], 1.0)
        return changes

    def to_dense(self) -> np.ndarray:
        """float32, shape ``(layout.size,)``; a coordinate that was not sent is 0."""
        dense = np.zeros(self.layout.size, np.float32)
        for s in self.segments:
            dense[s.start : s.start + s.size][slice(None) if s.indices is None else s.indices] = s.values
        return dense

    def as_dense(self) -> np.ndarray:
        """As :meth:`to_dense`, but read-only, and without a copy where the payload holds every coordinate."""
        whole = len(self.segments) == 1 and self.segments[0].indices is None
        dense = self.segments[0].values.view() if whole else self.to_dense()
        dense.flags.writeable = False
        return dense


def add_segments(accumulator: np.ndarray | Tensor, segments: Iterable[Segment], weight: float) -> None:
    """As :meth:`SparseUpdate.add_to`, for an accumulator that may end with the last segment."""
    if isinstance(accumulator, Tensor) and accumulator.device.type == "cpu":
        accumulator = accumulator.numpy()
    for s in segments:
        part = accumulator[s.start : s.start + s.size]
        if isinstance(part, Tensor):
            add_on_device(part, s, weight)
        elif s.indices is not None:
            for at in blocks(s.values.size):
                values = torch.from_numpy(np.multiply(s.values[at], weight, dtype=part.dtype))
                indices = torch.from_numpy(s.indices[at].astype(np.int64, copy=False))
                torch.from_numpy(part).scatter_add_(0, indices, values)  # np.add.at takes longer
        else:
            for at in blocks(s.size):
                part[at] += np.multiply(s.values[at], weight, dtype=part.dtype)


def add_on_device(part: Tensor, segment: Segment, weight: float) -> None:
    """``part += weight * segment``; the CPU does not wait for the device."""
    values = torch.tensor(segment.values).to(part) * weight
    if segment.indices is None:
        part += values
    else:
        part.index_add_(0, torch.tensor(segment.indices, device=part.device), values)
