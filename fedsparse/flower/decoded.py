"""What CompressedStrategy makes of a compressed reply: the reply that the client's app had written.

No dense copy of a client's arrays is kept. Its update is decoded when a strategy reads the first of the arrays, and
forgotten when it has read the last: FedAvg, which reads one client's arrays after another's, has one update at a time.
"""

import logging
from collections.abc import Collection
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict

from fedsparse.compression import PayloadError, SparseUpdate
from fedsparse.compression.sparse_update import Segment
from fedsparse.compression.wire import binding, decode
from fedsparse.compression.zero_rows import is_whole
from fedsparse.engine.records import STYPE
from fedsparse.errors import one_line
from fedsparse.flower.plain_arrays import NUMPY, read
from fedsparse.flower.shared_arrays import Part, SharedArrays

log = logging.getLogger("fedsparse")


class Update:
    """A client's update, checked, and decoded again whenever its arrays are read.

    Args:
        payload: of the client.
        part: what it holds.
        bound: the binding of the client and run.
        round: of the server.

    Attributes:
        part: see above.
        largest: the magnitude of the largest change.
        is_whole: whether all that the client left out is zero.

    Raises:
        PayloadError: one line that says what is wrong.
    """

    def __init__(self, payload: bytes, part: Part, bound: int, round: int) -> None:
        self._payload, self.part, self._bound = payload, part, bound
        update = decode(payload, part.layout, bound)
        if update.round != round:
            raise PayloadError(f"payload of round {update.round} in round {round}")
        self.largest = max((float(np.abs(s.values).max()) for s in update.segments if s.values.size), default=0.0)
        self.is_whole = is_whole(update)
        self._sparse: SparseUpdate | None = update if small(update) else None
        self._dense: np.ndarray | None = None
        self._unread = set(range(len(part.places)))
        self._is_read = self._is_over = False

    def close(self) -> bool:
        """End the update's round; whether the strategy has read it. One that it has not read returns to its client."""
        self._is_over = True
        return self._is_read

    def change(self, index: int) -> np.ndarray:
        """The change of one array of the part: float32, of the array's shape."""
        if self._dense is None:
            self._unread = set(range(len(self.part.places)))
            self._dense = self._read().to_dense()
        entry = self.part.layout.entries[index]
        change = self._dense[entry.slice].reshape(entry.shape)
        self._unread.discard(index)
        if not self._unread:
            self._dense = None
        return change

    def segments(self) -> list[Segment]:
        """What the client sent of each array of the part."""
        update, entries = self._read(), self.part.layout.entries
        values = np.concatenate([s.values for s in update.segments])
        if update.sends_all:
            return [Segment(0, entry.size, None, values[entry.slice]) for entry in entries]
        places = [s.start + (np.arange(s.size) if s.indices is None else s.indices) for s in update.segments]
        indices = np.concatenate(places)
        cuts = np.searchsorted(indices, [(entry.start, entry.start + entry.size) for entry in entries])
        parts = zip(entries, cuts.tolist(), strict=True)
        return [Segment(0, e.size, indices[a:b] - e.start, values[a:b]) for e, (a, b) in parts]

    def _read(self) -> SparseUpdate:
        if self._is_over and not self._is_read:
            log.warning("a reply is read after its round: its client sends what is in it once more")
        self._is_read = True
        return self._sparse or decode(self._payload, self.part.layout, self._bound)


def small(update: SparseUpdate) -> bool:
    """Whether an update takes much less memory than the arrays would."""
    bytes_held = sum(s.values.nbytes + (0 if s.indices is None else s.indices.nbytes) for s in update.segments)
    return bytes_held <= update.layout.size


class DecodedArray(Array):
    """The Array of the client's, sent + change, made when it is read. Its numbers are new with every reading.

    bfloat16, which NumPy cannot average, is float32 here.

    Args:
        base: what was sent.
        update: of the client.
        index: of the array in the update's part.
    """

    def __init__(self, base: np.ndarray, update: Update, index: int) -> None:
        self.dtype, self.shape, self.stype = str(base.dtype), tuple(base.shape), NUMPY
        self.update, self.index, self._base = update, index, base

    def numpy(self) -> np.ndarray:
        """sent + change, of the dtype that was sent."""
        wide = np.result_type(self._base, np.float32)
        total = np.add(self._base, self.update.change(self.index), dtype=wide)
        return np.asarray(total, self.dtype)  # of arrays without dimensions, NumPy's sum is a scalar

    @property
    def data(self) -> bytes:  # type: ignore[override]
        return Array(self.numpy()).data

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, self.shape, self.stype, self.data)


def payload_of(content: RecordDict, twins: Collection[str]) -> bytes | None:
    """The payload in a reply's ArrayRecords; None in a dense reply.

    Raises:
        PayloadError: there are several, or one is in a record that answers none of the message's.
    """
    records = content.array_records
    found = [(name, array) for name, record in records.items() for array in record.values() if array.stype == STYPE]
    if len(found) > 1 or (found and found[0][0] not in twins):
        raise PayloadError(f"{len(found)} payloads, the first in record {one_line(found[0][0])!r}")
    return found[0][1].data if found else None


def checked(name: str, array: Array, sent: Array) -> Array:
    """An array that came as it is; bfloat16, which NumPy cannot average, is float32 here.

    Raises:
        PayloadError: it is no array of numbers of the shape that was sent.
    """
    if array.stype == sent.stype != NUMPY:
        return array
    try:
        values, before = read(array), read(sent)
    except ValueError as error:
        raise PayloadError(f"its array {one_line(name)!r} cannot be read: {error}") from None
    if values.shape != before.shape or values.dtype.kind not in "biufc" + before.dtype.kind:
        raise PayloadError(f"its array {one_line(name)!r} has another shape or other content than was sent")
    return Array(values) if array.dtype == "bfloat16" else array


def decoded(
    reply: Message, sent: SharedArrays, round: int, *, every_coordinate: bool
) -> tuple[RecordDict, Update | None]:
    """The content that the client's app had written, and the update in it; None for a dense reply.

    Args:
        reply: with content.
        sent: what the client was sent.
        round: of the server.
        every_coordinate: refuse payloads that leave coordinates out.

    Raises:
        PayloadError: one line that says what is wrong.
    """
    twins, records = sent.twins(reply.content.array_records), dict(reply.content.items())
    payload = payload_of(reply.content, twins)
    if payload is None:
        return reply.content, None
    missing = [(twin, key) for name, twin in twins.items() for key in sent.records[twin] if key not in records[name]]
    if unknown := [place for place in missing if place not in sent.values]:
        raise PayloadError(f"its array {unknown[0][1]!r} is missing")
    part = sent.part(missing)
    update = Update(payload, part, binding(str(reply.metadata.run_id), reply.metadata.src_node_id), round)
    room, dtype = min((sent.room[place] for place in part.places), default=(0.0, ""))
    if update.largest > room:
        raise PayloadError(f"a change of {update.largest:.3g} could take its {dtype} beyond {np.finfo(dtype).max:.5g}")
    if every_coordinate and not update.is_whole:
        raise PayloadError(
            "it leaves coordinates out, which this strategy would take for zeros; use CompressMod('eden')"
        )
    index = {place: i for i, place in enumerate(part.places)}
    for name, twin in twins.items():
        rebuilt = ArrayRecord()
        left: dict[str, Array] = records[name]  # type: ignore[assignment]
        for key, array in sent.records[twin].items():
            if key in left:
                rebuilt[key] = checked(key, left[key], array)
            else:
                rebuilt[key] = DecodedArray(sent.values[twin, key], update, index[twin, key])
        records[name] = rebuilt
    return RecordDict(records), update
