"""Leaves rows of zeros out of a dense payload, such as the rows of an embedding whose tokens no sample has.

Such a row has no gradient, so that its update is exactly zero. A run of these rows becomes a segment without values.
"""

import numpy as np

from fedsparse.compression import wire
from fedsparse.compression.factors import matrix_shape
from fedsparse.compression.sparse_update import SparseUpdate
from fedsparse.compression.values import ValueCodec
from fedsparse.vector import Layout

LEAST = 64
"""Coordinates of a run that is worth two more segment headers of 16 bytes each, at two bytes a coordinate."""


def code_without_zero_rows(layout: Layout, vector: np.ndarray, values: ValueCodec, seed: int) -> list[wire.Coded]:
    """Segments that cover ``vector``, float32 of shape ``(layout.parameters,)``, except for its rows of zeros.

    Args:
        values: a coding that treats each value for itself, and gives 0 for 0.
    """
    segments, coded = [], 0
    for start, stop in zero_runs(layout, vector).tolist():
        if start > coded:
            segments.append(wire.Coded.dense(vector[coded:start], values, seed))
        segments.append(wire.Coded(stop - start, np.empty(0, np.int64), values, b"", np.array([0])))
        coded = stop
    if coded < len(vector):
        segments.append(wire.Coded.dense(vector[coded:], values, seed))
    return segments


def zero_runs(layout: Layout, vector: np.ndarray) -> np.ndarray:
    """Runs of rows of zeros of tables in ``vector``: int64, shape ``(runs, 2)``, each run's start and stop, in order.

    Neighbouring rows are one run. Of more runs than a payload has room for, it gives the longest ones.
    """
    rows = [np.empty((0, 2), np.int64)]
    for entry in layout.trainable:
        if wire.is_table(entry) and entry.size:
            matrix = vector[entry.slice].reshape(matrix_shape(entry))
            starts = entry.start + matrix.shape[1] * np.flatnonzero(~matrix.any(axis=1))
            rows.append(np.stack([starts, starts + matrix.shape[1]], axis=1))
    starts, stops = np.concatenate(rows).T
    apart = starts[1:] != stops[:-1]
    runs = np.stack([starts[np.r_[True, apart]], stops[np.r_[apart, True]]], axis=1) if len(starts) else rows[0]
    runs = runs[runs[:, 1] - runs[:, 0] >= LEAST]
    longest = np.argsort(runs[:, 0] - runs[:, 1], kind="stable")[: (wire.MOST_SEGMENTS - 2) // 2]
    return runs[np.sort(longest)]


def is_whole(update: SparseUpdate) -> bool:
    """Whether all that an update leaves out is zero: rows of tables. Elsewhere, a segment without values is a selection
    that chose none of its coordinates."""

    def is_of_tables(start: int, stop: int) -> bool:
        touched = [e for e in update.layout.entries if e.start < stop and start < e.start + e.size]
        return all(e in update.layout.trainable and wire.is_table(e) for e in touched)

    sparse = [s for s in update.segments if s.indices is not None]
    return all(not s.values.size and is_of_tables(s.start, s.start + s.size) for s in sparse)
