"""Puts bytes into Flower's records, as Arrays that only this project's apps can read."""

from typing import Any

import xxhash
from flwr.app import Array, ArrayRecord, RecordDict

from fedsparse.vector import Layout

STYPE = "fedsparse/1"


def payload_array(payload: bytes, layout: Layout) -> Array:
    """The payload as an Array of the shape and dtype that it decodes to."""
    return Array("float32", (layout.size,), STYPE, payload)


def plain_array(data: bytes) -> Array:
    """Bytes without a layout, such as a mask coded by ``sparsity.masks.encode_mask``, as an Array."""
    return Array("uint8", (len(data),), STYPE, data)


def array_bytes(content: RecordDict) -> int:
    """The bytes of all Arrays in a message; settings and metrics are not counted."""
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return sum(len(array.data) for record in records for array in record.values())


def content_bytes(content: RecordDict) -> int:
    """The bytes of everything in a message, as Flower's ``message_size_mod`` counts: arrays, numbers, texts, and keys.

    Flower's own count raises on an empty text or list. Protobuf's framing of the records is not in it.
    """
    return sum(len(key) + _value_bytes(value) for record in content.values() for key, value in record.items())


def _value_bytes(value: Any) -> int:
    if isinstance(value, Array):
        return len(value.data)
    if isinstance(value, list):
        return sum(map(_value_bytes, value))
    return len(value) if isinstance(value, str | bytes) else 1 if isinstance(value, bool) else 8


def independent(content: RecordDict) -> RecordDict:
    """A copy whose records can be changed without a change of ``content``; both share the data of the arrays."""
    return RecordDict({name: record.copy() for name, record in content.items()})


def content_hash(content: RecordDict) -> str:
    """A hash of all records, in hexadecimal."""
    hasher = xxhash.xxh3_128()
    for name, record in content.items():
        hasher.update(f"{type(record).__name__} {name!r}\n".encode())
        for key, value in record.items():
            shown = (value.dtype, value.shape, value.stype, len(value.data)) if isinstance(value, Array) else value
            hasher.update(f"{key!r} {shown!r}\n".encode())
            if isinstance(value, Array):
                hasher.update(value.data)
    return hasher.hexdigest()
