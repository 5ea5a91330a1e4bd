"""Puts bytes into Flower's records, as Arrays that only this project's apps can read."""

from flwr.app import Array, ArrayRecord, RecordDict

from fedsparse.vector import Layout

STYPE = "fedsparse/1"


def payload_array(payload: bytes, layout: Layout) -> Array:
    """The payload as an Array of the shape and dtype that it decodes to."""
    return Array("float32", (layout.size,), STYPE, payload)


def mask_array(mask: bytes) -> Array:
    """A mask, coded by ``sparsity.masks.encode_mask``, as an Array."""
    return Array("uint8", (len(mask),), STYPE, mask)


def array_bytes(content: RecordDict) -> int:
    """The bytes of all Arrays in a message; settings and metrics are not counted."""
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return sum(len(array.data) for record in records for array in record.values())
