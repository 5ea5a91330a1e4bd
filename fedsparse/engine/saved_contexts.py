"""A client's Context as plain tensors, bytes, numbers and strings for a checkpoint, and back.

Any Flower app's Context can be kept in this way, not only one of this project's clients.
"""

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

KINDS = {"arrays": ArrayRecord, "metrics": MetricRecord, "config": ConfigRecord}


def to_plain(state: RecordDict) -> dict[str, Any]:
    """The records by name, each as its kind and its content."""
    plain: dict[str, Any] = {}
    record: Any
    for name, record in state.items():
        kind = next(kind for kind, record_type in KINDS.items() if isinstance(record, record_type))
        content = {key: _plain_array(value) if kind == "arrays" else value for key, value in record.items()}
        plain[name] = {"kind": kind, "content": content}
    return plain


def from_plain(plain: dict[str, Any]) -> RecordDict:
    """The inverse of ``to_plain``."""
    state = RecordDict()
    for name, record in plain.items():
        content = record["content"]
        if record["kind"] == "arrays":
            content = {key: Array(a["dtype"], tuple(a["shape"]), a["stype"], a["data"]) for key, a in content.items()}
        state[name] = KINDS[record["kind"]](content)
    return state


def _plain_array(array: Array) -> dict[str, Any]:
    return {"dtype": array.dtype, "shape": list(array.shape), "stype": array.stype, "data": array.data}
