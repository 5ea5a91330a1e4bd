"""CompressedStrategy's downlink: the global arrays as compressed changes, for clients with ``CompressMod``.

The method is that of ``fedsparse.compression.changes``. Its weights v are the float32 vector of a message's arrays. The
strategy goes on with the exact arrays w, and a client's update, which began at v, is added to w.
"""

import json
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord

from fedsparse.compression import wire
from fedsparse.compression.changes import Changes
from fedsparse.compression.values import F32
from fedsparse.config import Config
from fedsparse.engine.records import payload_array
from fedsparse.flower.names import ARRAYS, CHANGE, HASH, WHOLE
from fedsparse.flower.plain_arrays import record_of
from fedsparse.flower.shared_arrays import SharedArrays
from fedsparse.seeds import derive_seed
from fedsparse.vector import digest


class Broadcast:
    """Sends each client the shorter of the changes that it misses and the whole arrays.

    Args:
        config: its downlink settings, and the seed.
    """

    def __init__(self, config: Config) -> None:
        self._compression, self._seed = config.downlink_compression(), config.seed
        self._changes: Changes | None = None
        self._last = b""  # the digest of the last arrays w
        self._has_moved = False  # since the last training
        self._held: dict[int, int] = {}  # node id -> the version of v that it surely holds
        self._sent: dict[int, int] = {}  # node id -> the version of v in its last message

    def advance(self, sent: SharedArrays, *, training: bool) -> bool:
        """Move v towards the arrays w of a message, once for each training and the evaluation before it.

        Returns:
            Whether there is anything that changes could tell.
        """
        if not any(values.size for values in sent.values.values()):
            return False
        part = sent.part(sent.values)
        flat = np.empty(part.layout.size, np.float32)
        for place, entry in zip(part.places, part.layout.entries, strict=True):
            flat[entry.slice] = sent.values[place].reshape(-1)
        new = digest(flat)
        if self._changes is None or self._changes.layout != part.layout:
            version = self._changes.round + 1 if self._changes else 1
            self._changes, self._held = Changes(part.layout, flat.copy(), version, self._compression), {}
        elif new != self._changes.hash and (new != self._last or (training and not self._has_moved)):
            version = self._changes.round + 1
            self._changes.advance(flat, version, derive_seed(self._seed, "downlink", round=version))
            self._has_moved = True
        self._last, self._has_moved = new, self._has_moved and not training
        return True

    def message(self, sent: SharedArrays, node: int) -> tuple[dict[str, ArrayRecord], dict[str, Any]]:
        """A node's ArrayRecords in the place of those in ``sent``, and what ``CompressMod`` needs to restore them."""
        assert self._changes
        layout, version = self._changes.layout, self._changes.round
        payloads = {f"{CHANGE}{r}": data for r, data in (self._changes.since(self._held.get(node, 0)) or {}).items()}
        known = node in self._held and len(payloads) >= version - self._held[node]
        if not known or sum(map(len, payloads.values())) >= 4 * layout.size:
            payloads = {WHOLE: wire.encode(layout, version, [wire.Coded.dense(self._changes.known, F32())])}
        self._sent[node] = version
        first: dict[str, Array] = {name: payload_array(data, layout) for name, data in payloads.items()}
        records, listed = {}, []
        for name, arrays in sent.records.items():
            shared = {key: array for key, array in arrays.items() if (name, key) in sent.values}
            listed += [[name, key, a.dtype, a.shape] if key in shared else [name, key] for key, a in arrays.items()]
            left = {key: array for key, array in arrays.items() if key not in shared}
            records[name] = record_of((first if shared else {}) | left)
            first = {} if shared else first
        return records, {HASH: self._changes.hash, ARRAYS: json.dumps(listed)}

    def answered(self, node: int, *, failed: bool) -> None:
        """Note that a node has answered its last message; one that failed may have lost what it held."""
        if failed:
            self._held.pop(node, None)
        elif node in self._sent:
            self._held[node] = self._sent[node]
