"""How a payload travels in Flower's records: as one Array that only this project's strategies can read."""

from flwr.app import Array

from fedsparse.vector import Layout

STYPE = "fedsparse/1"


def payload_array(payload: bytes, layout: Layout) -> Array:
    """The payload as an Array of the shape and dtype that it decodes to."""
    return Array("float32", (layout.size,), STYPE, payload)
