"""Flower's Arrays of numbers as NumPy arrays, and back, without copies where none is needed."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from flwr.app import Array, ArrayRecord

NUMPY = "numpy.ndarray"
"""How Flower serialises an array: as the content of a .npy file."""
FLOATS = ("float16", "bfloat16", "float32", "float64")


def is_float(array: Array) -> bool:
    """Whether an Array has floating-point numbers that can be subtracted."""
    return array.stype == NUMPY and array.dtype in FLOATS


def read(array: Array) -> np.ndarray:
    """The numbers as a read-only view of the Array's bytes. bfloat16, which NumPy lacks, becomes float32.

    Raises:
        ValueError: the bytes are no .npy file of numbers.
    """
    try:
        return _parsed(array)
    except Exception as error:  # the header is text of Python's, and a hostile one fails in many ways
        raise ValueError(f"no .npy file of numbers: {error or type(error).__name__}") from None


def _parsed(array: Array) -> np.ndarray:
    stream = BytesIO(array.data)  # shares the bytes until somebody writes
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a .npy file of version {version}")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = header(stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    size = int(np.prod(shape, dtype=np.int64))
    values = np.frombuffer(array.data, dtype, size, stream.tell()) if size else np.empty(0, dtype)
    if array.dtype == "bfloat16":
        values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def written(values: np.ndarray, dtype: str) -> Array:
    """An Array of ``values`` in this dtype; whole numbers are rounded to the nearest."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # ties to even; there are no NaNs
        return Array("bfloat16", values.shape, NUMPY, Array(nearest.astype(np.uint16).view("V2")).data)
    if np.issubdtype(np.dtype(dtype), np.integer):
        values = np.rint(values)
    return Array(np.asarray(values, dtype))


def pinned(arrays: ArrayRecord, before: ArrayRecord) -> ArrayRecord:
    """The arrays, each with the dtype that the array of its name had before, and none still to be decoded."""
    return record_of(
        {
            name: written(read(array), old.dtype)
            if (old := before.get(name)) and old.dtype != array.dtype and array.stype == old.stype == NUMPY
            else Array(array.dtype, array.shape, array.stype, array.data)
            for name, array in arrays.items()
        }
    )


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """An ArrayRecord of these very Arrays; its constructor would copy them."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record
