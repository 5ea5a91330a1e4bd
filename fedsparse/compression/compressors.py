"""Makes the compressor of a name: one of the catalogue, or the user's own, whose mistakes become one line."""

import traceback
from typing import Any

import numpy as np
from torch import Tensor

from fedsparse.catalogue import COMPRESSORS
from fedsparse.compression.arrays import Array, on_same_device
from fedsparse.compression.selection import Indices, Part
from fedsparse.errors import PluginError
from fedsparse.plugins import is_own, last_line, named

METHODS = ("indices", "select", "factor")
"""A compressor has one of these: it is a ``Selection``, a ``FusedSelection`` or a ``Factorization``."""


def build_compressor(name: str, options: dict[str, Any]) -> Any:
    """An instance of a compressor.

    Args:
        name: in ``catalogue.COMPRESSORS``; or the user's own class, as ``module:Class`` or ``path/to/file.py:Class``.
        options: the arguments of its constructor.

    Raises:
        ValueError: there is no such compressor, an option is wrong, or the user's own class has a fault.
    """
    if name in COMPRESSORS:
        return named(COMPRESSORS, name)(**options)
    if not is_own(name):
        names = ", ".join(COMPRESSORS)
        raise ValueError(f"compressor must be one of {names}, or one's own as file.py:Class, not {name!r}")
    own = named(COMPRESSORS, name)
    if not isinstance(own, type) or not any(callable(getattr(own, method, None)) for method in METHODS):
        raise PluginError(f"{name} is no compressor: it should be a class with a method {', '.join(METHODS)}")
    try:
        return own(**options)
    except Exception as error:
        raise PluginError(f"{name}: {last_line(error)}", traceback.format_exc()) from None


def checked_indices(name: str, vector: Array, indices: Any, parts: list[Part]) -> Indices:
    """The indices of a user's own compressor beside the vector, after a check of ``Selection``'s contract.

    They may be NumPy arrays or tensors, on any device.

    Raises:
        PluginError: one line that names the compressor.
    """
    if indices is None:
        return None
    if not isinstance(indices, list | tuple) or len(indices) != len(parts):
        raise PluginError(f"{name}: indices should be a list of {len(parts)} arrays, one for each part, or None")
    for found, (start, stop, _) in zip(indices, parts, strict=True):
        is_array = isinstance(found, np.ndarray | Tensor)
        if not is_array or str(found.dtype) not in ("int64", "torch.int64") or found.ndim != 1:
            got = getattr(found, "dtype", type(found).__name__), tuple(getattr(found, "shape", ()))
            raise PluginError(f"{name}: indices should be int64 of one dimension, not {got}")
        if len(found) and not (start <= found[0] and found[-1] < stop and (found[1:] > found[:-1]).all()):
            raise PluginError(f"{name}: indices should be sorted, distinct, and here from {start} to {stop - 1}")
    return [on_same_device(found, vector) for found in indices]
