"""Refuses NaN and infinity in an update."""

import math

import numpy as np

from fedsparse.compression.arrays import Array, norm, to_numpy
from fedsparse.vector import Layout


class NonFiniteError(ValueError):
    """An update has NaN or infinity; ``layer`` is the name of a tensor that has one."""

    def __init__(self, layer: str) -> None:
        super().__init__(f"update of layer {layer!r} has NaN or infinity")
        self.layer = layer


def finite_norm(layout: Layout, values: Array, at: np.ndarray | None = None) -> float:
    """The L2 norm of ``values``, which is finite only if all values are.

    Args:
        layout: of the vector that has the values.
        at: the coordinates of the values; None for all coordinates.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    total = norm(values)
    if not math.isfinite(total):
        first = int(np.flatnonzero(~np.isfinite(to_numpy(values)))[0])
        coordinate = first if at is None else at[first]
        raise NonFiniteError(next(e.name for e in layout.entries if coordinate < e.start + e.size))
    return total
