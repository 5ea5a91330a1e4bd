"""The wire format ``fedsparse/1`` of payloads between a client and the server.

    "fsp" version:u8 flags:u16 segments:u16 fingerprint:u64 round:u32       little-endian, as everything here
    a segment:  index:u8 value:u8 grouping:u16 size:u32 count:u32 length:u32, ``length`` bytes of indices, the values
    xxh3:u32    the low half of XXH3-64 of all bytes before it

When the first segment has no indices, its values stand at a multiple of four bytes, because NumPy reads them fastest
there.
Segments cover the flat vector one after the other. A segment covers ``size`` coordinates and has ``count`` values: of
some of the coordinates, or of the two factors of a whole layer, column after column. The length of the values follows
from their codec and counts. The checksum finds accidents, but an attacker can compute it as well. So each field is
checked too, before anything larger than the layout is allocated.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from fedsparse.catalogue import VALUES
from fedsparse.compression.factors import factor_counts, matrix_shape, product
from fedsparse.compression.few_bits import FEW_BITS
from fedsparse.compression.fixed import FixedPoint
from fedsparse.compression.indices import IndexCodec, IndexFault, draw_bits, pack, positions, unpack
from fedsparse.compression.sparse_update import Segment, SparseUpdate
from fedsparse.compression.values import F32, ValueCodec, ValueReader, value_codec
from fedsparse.vector import Entry, Layout

MAGIC, VERSION = b"fsp", 1
HEADER = struct.Struct("<3sBHHQI")
SEGMENT = struct.Struct("<BBHIII")
CHECKSUM = struct.Struct("<I")
WHOLE, BY_LAYER, BY_ROW = 0, 1, 2
"""Grouping: the values form one group; or one group for each entry of the layout; or the segment is one entry of the
layout, and each of its rows (the weights of one output channel) is a group."""
KINDS = set(IndexCodec)
MOST_SEGMENTS = 1 << 14  # of a payload for any layout, because each segment takes the receiver 20 microseconds
READERS: tuple[ValueReader, ...] = (*map(value_codec, VALUES), FixedPoint(), *FEW_BITS)
CODECS = {reader.code: reader for reader in READERS}


class PayloadError(ValueError):
    """A payload is not accepted; the message says in one line what is wrong with it."""


@dataclass(frozen=True)
class Coded:
    """A segment to be sent.

    Attributes:
        size: how many coordinates it covers.
        indices: int64, sorted and distinct, counted from the segment's start: the coordinates of the values; None
            means all.
        codec: the coding of ``body``.
        body: the coded values.
        counts: int64, the sizes of the groups of values.
        grouping: what the groups are.
        seed: the indices are those of :func:`indices.draw`, and the seed travels in their place.
        rank: the segment is a layer of the layout, and ``body`` codes its factors of this rank.
    """

    size: int
    indices: np.ndarray | None
    codec: ValueReader
    body: bytes | memoryview
    counts: np.ndarray
    grouping: int = WHOLE
    seed: int | None = None
    rank: int | None = None

    @classmethod
    def dense(cls, values: np.ndarray, codec: ValueCodec, seed: int = 0) -> "Coded":
        """All coordinates of a segment, in one group: float32 ``values``."""
        counts = np.array([values.size])
        return cls(values.size, None, codec, codec.encode(values, counts, seed), counts)


def group_counts(
    layout: Layout, indices: np.ndarray | None, count: int, start: int, size: int, grouping: int
) -> np.ndarray:
    """The sizes of the groups of a received segment's values: int64, their sum is ``count``.

    Raises:
        IndexFault: rows of a segment that has none.
    """
    if grouping == WHOLE:
        return np.array([count])
    if grouping == BY_ROW:
        entry = next((e for e in layout.trainable if (e.start, e.size) == (start, size)), None)
        if entry is None or indices is not None:
            raise IndexFault("rows of a segment that is no whole entry")
        return np.array(entry.row_sizes)
    edges = layer_edges(layout, start, size)
    if indices is None:
        return np.diff(edges)
    return np.diff(np.searchsorted(indices, edges.astype(indices.dtype)))  # of one dtype, else NumPy copies the indices


def layer_edges(layout: Layout, start: int, size: int) -> np.ndarray:
    """Where the layout's entries begin inside a segment, counted from its start; then the segment's end."""
    starts = {e.start - start for e in layout.entries if start < e.start < start + size}  # a set, for empty entries
    return np.array([0, *sorted(starts), size])


def encode(layout: Layout, round: int, segments: Sequence[Coded]) -> bytes:
    """A payload of ``segments``, which cover ``layout.size`` in order; at most 64 bytes longer than dense float32."""
    parts: list[bytes | memoryview] = [HEADER.pack(MAGIC, VERSION, 0, len(segments), layout.fingerprint, round)]
    start = 0
    for segment in segments:
        parts += encode_segment(segment)
        start += segment.size
    if start != layout.size:
        raise ValueError(f"segments cover {start} of {layout.size} coordinates")
    return b"".join([*parts, checksum(*parts)])


def binding(run: str, client: int) -> int:
    """The 32 bits that bind a client's payloads to it and to the run; never 0, which stands for no binding."""
    return xxhash.xxh3_64_intdigest(f"{run}/{client}".encode()) & 0xFFFFFFFF or 1


def bind(payload: bytes, bound: int) -> bytes:
    """``payload`` with a checksum that fits this ``binding`` alone, so that it cannot pass for another client's."""
    (plain,) = CHECKSUM.unpack(payload[-CHECKSUM.size :])
    return payload[: -CHECKSUM.size] + CHECKSUM.pack(plain ^ bound)


def checksum(*parts: bytes | memoryview) -> bytes:
    """The low half of the XXH3-64 of all parts together, little-endian: four bytes."""
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return CHECKSUM.pack(digest.intdigest() & 0xFFFFFFFF)


def encode_segment(segment: Coded) -> list[bytes | memoryview]:
    size, indices, count = segment.size, segment.indices, int(segment.counts.sum())
    kind, index = IndexCodec.ALL, b""
    if segment.rank is not None:
        kind = IndexCodec.FACTORS
    elif indices is not None and segment.seed is not None:
        kind, index = IndexCodec.SEED, struct.pack("<Q", segment.seed) + segment.counts.astype("<u4").tobytes()
    elif indices is not None:
        kind, index = pack(indices, size)
    if segment.rank is None and len(index) + len(segment.body) > 4 * size:  # dense float32 is shorter, near density 1
        dense = np.zeros(size, np.float32)
        values = segment.codec.decode(memoryview(segment.body), segment.counts)
        dense[slice(None) if indices is None else indices] = values
        return encode_segment(Coded.dense(dense, F32()))
    return [SEGMENT.pack(kind, segment.codec.code, segment.grouping, size, count, len(index)), index, segment.body]


def as_received(layout: Layout, segments: Sequence[Coded]) -> Iterator[Segment]:
    """The segments that :func:`decode` will make of these."""
    start = 0
    for s in segments:
        values = s.codec.decode(memoryview(s.body), s.counts)
        if s.rank is not None:
            values = product(values, layer_at(layout, start, s.size))
        yield Segment(start, s.size, s.indices, values)
        start += s.size


def decode(payload: bytes, layout: Layout, bound: int = 0) -> SparseUpdate:
    """Reads and checks a payload. The result and all memory on the way take at most three times ``4 * layout.size``.

    Args:
        payload: bytes from :func:`encode`; any other bytes raise.
        layout: the receiver's own; the payload must have been made for the same layout.
        bound: the ``binding`` of the client and run that the payload must come from; 0 for a payload of the server's.

    Raises:
        PayloadError: the payload has a fault.
    """
    if not HEADER.size + CHECKSUM.size <= len(payload) <= 4 * layout.size + 64:
        raise PayloadError(f"payload of {len(payload)} bytes for a layout of {layout.size} coordinates")
    magic, version, flags, segments, fingerprint, round = HEADER.unpack_from(payload)
    if magic != MAGIC:
        raise PayloadError(f"payload starts with {magic!r}, not {MAGIC!r}")
    if version != VERSION or flags:
        raise PayloadError(f"payload of version {version}, flags {flags}; this is version {VERSION}")
    view = memoryview(payload)
    body = view[: -CHECKSUM.size]
    if bind(payload[-CHECKSUM.size :], bound) != checksum(body):
        whose = ", or it is another client's or another run's" * bool(bound)
        raise PayloadError(f"payload is damaged{whose}: its checksum does not match")
    if fingerprint != layout.fingerprint:
        raise PayloadError(f"payload is for layout {fingerprint:016x}, not {layout.fingerprint:016x}")
    if segments > (most := most_segments(layout)):  # because even an empty segment takes time
        raise PayloadError(f"payload of {segments} segments; this layout needs no more than {most}")
    found, start, rest = [], 0, body[HEADER.size :]
    for _ in range(segments):
        try:
            segment, rest = decode_segment(rest, layout, start)
        except IndexFault as fault:
            raise PayloadError(f"segment at {start}: {fault}") from None
        found.append(segment)
        start += segment.size
    if start != layout.size or len(rest):
        raise PayloadError(f"payload covers {start} of {layout.size} coordinates, {len(rest)} bytes trail")
    return SparseUpdate(layout, round, tuple(found))


def most_segments(layout: Layout) -> int:
    """How many segments a payload may have: each row of a table and each other entry alone, dense segments between
    them, and the buffers."""
    rows = sum(entry.shape[0] if is_table(entry) else 1 for entry in layout.trainable)
    return min(2 * rows + 2, MOST_SEGMENTS)


def is_table(entry: Entry) -> bool:
    """Whether an entry has so many rows that it may be a table of tokens, of which a client's text has only some."""
    return len(entry.shape) == 2 and entry.shape[0] >= 1000


def decode_segment(rest: memoryview, layout: Layout, start: int) -> tuple[Segment, memoryview]:
    if len(rest) < SEGMENT.size:
        raise PayloadError(f"segment at {start} is cut off")
    kind, code, grouping, size, count, length = SEGMENT.unpack_from(rest)
    rest = rest[SEGMENT.size :]
    if not 0 < size <= layout.size - start or count > size or length > len(rest):
        raise PayloadError(f"segment at {start}: {count} values of {size} coordinates, {length} bytes of indices")
    if code not in CODECS or grouping not in (WHOLE, BY_LAYER, BY_ROW) or kind not in KINDS:
        raise PayloadError(f"segment at {start}: unknown coding {kind}/{code}/{grouping}")
    index, rest = rest[:length], rest[length:]
    indices, layer = None, None
    if kind == IndexCodec.FACTORS:
        layer = layer_at(layout, start, size)
        counts = checked_factors(layer, count, length, grouping)
    else:
        indices = decode_indices(IndexCodec(kind), index, layout, start, size, count, grouping == BY_LAYER)
        counts = group_counts(layout, indices, count, start, size, grouping)
    wanted = CODECS[code].size(counts)
    if wanted > len(rest):
        raise PayloadError(f"segment at {start}: values are cut off, {len(rest)} of {wanted} bytes")
    with np.errstate(over="ignore", invalid="ignore"):  # of hostile scales and factors; the result is checked
        values = CODECS[code].decode(rest[:wanted], counts)
        if layer is not None and np.isfinite(values).all():
            values = product(values, layer)
    if not np.isfinite(values).all():
        raise PayloadError(f"segment at {start}: a value is not finite")
    return Segment(start, size, indices, values), rest[wanted:]


def layer_at(layout: Layout, start: int, size: int) -> Entry:
    """The layer, an entry of two dimensions or more, that starts and ends with a segment."""
    for entry in layout.trainable:
        if (entry.start, entry.size) == (start, size) and len(entry.shape) >= 2:
            return entry
    raise IndexFault(f"factors for {size} coordinates that are no matrix")


def checked_factors(layer: Entry, count: int, length: int, grouping: int) -> np.ndarray:
    """The sizes of the groups of a factored segment's values.

    Raises:
        IndexFault: the segment's header does not fit its layer.
    """
    rows, columns = matrix_shape(layer)
    rank, rest = divmod(count, rows + columns)
    if rest or rank > min(rows, columns) or length or grouping != WHOLE:
        raise IndexFault(f"{count} values, {length} bytes of indices for factors of {rows} x {columns}")
    return factor_counts(layer, rank)


def decode_indices(
    kind: IndexCodec, body: memoryview, layout: Layout, start: int, size: int, count: int, by_layer: bool
) -> np.ndarray | None:  # fmt: skip
    """The indices of one segment; None means all."""
    if kind is IndexCodec.ALL:
        if len(body) or count != size:
            raise IndexFault(f"{count} values and {len(body)} bytes of indices where all {size} are meant")
        return None
    if kind is IndexCodec.SEED:
        sizes = np.diff(layer_edges(layout, start, size)) if by_layer else np.array([size])
        if len(body) != 8 + 4 * sizes.size:
            raise IndexFault("a seed of the wrong length")
        counts = np.frombuffer(body[8:], "<u4").astype(np.int64)
        if counts.sum() != count or (counts > sizes).any():
            raise IndexFault("counts that do not match")
        return seeded_groups(int.from_bytes(body[:8], "little"), counts, sizes)
    return unpack(kind, body, count, size)


def seeded_groups(seed: int, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The indices that were drawn for consecutive groups, as one sorted array."""
    if sizes.size == 1:
        return positions(draw_bits(seed, 0, int(counts[0]), int(sizes[0])))
    most = 2 * counts.sum() > sizes.sum()
    drawn, at, start = np.empty(int(counts.sum()), np.int32 if most else np.int64), 0, 0
    for group, (count, size) in enumerate(zip(counts.tolist(), sizes.tolist(), strict=True)):
        here = positions(draw_bits(seed, group, count, size))
        np.add(here, start, out=drawn[at : at + count], casting="same_kind")
        at, start = at + count, start + size
    return drawn
