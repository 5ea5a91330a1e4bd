"""``fedsparse/1``: what travels between a client and the server, to the byte.

    "fsp" version:u8 flags:u16 segments:u16 fingerprint:u64 round:u32       little-endian, as everything here
    a segment:  index:u8 value:u8 grouping:u16 size:u32 count:u32 length:u32, ``length`` bytes of indices, the values
    xxh3:u32    the low half of XXH3-64 of all bytes before it

A first segment's values without indices before them stand at a multiple of four bytes, as NumPy reads them fastest.
Segments cover the flat vector one after the other: ``size`` coordinates, ``count`` of them present; or a whole layer as
the ``count`` entries of two factors, column after column. The values' length follows from their codec and counts. A
checksum finds accidents, not attackers, who can compute it as well: everything behind it is checked for itself, before
anything larger than the layout is allocated.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from torch import Tensor

from fedsparse.compression.factors import factor_counts, matrix_shape, product
from fedsparse.compression.indices import IndexCodec, IndexFault, draw, pack, unpack
from fedsparse.compression.values import VALUES, ValueCodec
from fedsparse.vector import Entry, Layout

MAGIC, VERSION = b"fsp", 1
HEADER = struct.Struct("<3sBHHQI")
SEGMENT = struct.Struct("<BBHIII")
CHECKSUM = struct.Struct("<I")
WHOLE, BY_LAYER = 0, 1  # grouping: the values form one group, or one for each layer of the layout
BLOCK = 1 << 16  # elements that a dense addition holds in a temporary
KINDS = set(IndexCodec)
CODECS = {codec.code: codec for codec in VALUES.values()}


class PayloadError(ValueError):
    """A payload that cannot be trusted; the message says in one line what is wrong with it."""


@dataclass(frozen=True)
class Coded:
    """A segment on its way out.

    Attributes:
        size: coordinates that it covers.
        indices: sorted distinct int64, shape ``(count,)``; None means all.
        codec: the coding of ``body``.
        body: the coded values.
        by_layer: the values are grouped by the layout's layers.
        seed: the indices are those of :func:`indices.draw`, and the seed travels instead.
        rank: the segment is a layer of the layout, and ``body`` codes its factors of this rank.
    """

    size: int
    indices: np.ndarray | None
    codec: ValueCodec
    body: bytes | memoryview
    by_layer: bool = False
    seed: int | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Segment:
    """A segment as received: float32 ``values`` for ``indices`` (int64, counted from ``start``; None means all)."""

    start: int
    size: int
    indices: np.ndarray | None
    values: np.ndarray


@dataclass(frozen=True)
class SparseUpdate:
    """A decoded payload: every check has passed, every value is finite."""

    layout: Layout
    round: int
    segments: tuple[Segment, ...]

    def add_to(self, accumulator: np.ndarray | Tensor, weight: float = 1.0) -> None:
        """``accumulator += weight * update``, in the accumulator's precision.

        Args:
            accumulator: float32 or float64, shape ``(layout.size,)``; an array or a tensor on any device, in place.
            weight: a factor for every value.
        """
        if isinstance(accumulator, Tensor) and accumulator.device.type == "cpu":
            accumulator = accumulator.numpy()
        for s in self.segments:
            part = accumulator[s.start : s.start + s.size]
            if isinstance(part, Tensor):
                add_on_device(part, s, weight)
            elif s.indices is not None:
                values = torch.from_numpy(np.multiply(s.values, weight, dtype=part.dtype))
                torch.from_numpy(part).scatter_add_(0, torch.from_numpy(s.indices), values)  # np.add.at takes longer
            else:
                for at in range(0, s.size, BLOCK):
                    part[at : at + BLOCK] += np.multiply(s.values[at : at + BLOCK], weight, dtype=part.dtype)

    def to_dense(self) -> np.ndarray:
        """float32, shape ``(layout.size,)``, zero where nothing was sent."""
        dense = np.zeros(self.layout.size, np.float32)
        for s in self.segments:
            dense[s.start : s.start + s.size][slice(None) if s.indices is None else s.indices] = s.values
        return dense


def add_on_device(part: Tensor, segment: Segment, weight: float) -> None:
    """``part += weight * segment`` without a synchronisation."""
    values = torch.tensor(segment.values).to(part) * weight
    if segment.indices is None:
        part += values
    else:
        part.index_add_(0, torch.tensor(segment.indices, device=part.device), values)


def group_counts(
    layout: Layout, indices: np.ndarray | None, count: int, start: int, size: int, by_layer: bool
) -> np.ndarray:
    """How many of a segment's values belong to each group: int64, summing to ``count``."""
    if not by_layer:
        return np.array([count])
    edges = layer_edges(layout, start, size)
    return np.diff(edges if indices is None else np.searchsorted(indices, edges))


def layer_edges(layout: Layout, start: int, size: int) -> np.ndarray:
    """Where the layout's entries inside a segment begin, counted from its start, and its end."""
    starts = {e.start - start for e in layout.entries if start < e.start < start + size}  # empty entries share one
    return np.array([0, *sorted(starts), size])


def encode(layout: Layout, round: int, segments: Sequence[Coded]) -> bytes:
    """A payload of ``segments``, which cover ``layout.size`` in order; at most 64 bytes longer than dense float32."""
    parts: list[bytes | memoryview] = [HEADER.pack(MAGIC, VERSION, 0, len(segments), layout.fingerprint, round)]
    start = 0
    for segment in segments:
        parts += encode_segment(layout, segment, start)
        start += segment.size
    if start != layout.size:
        raise ValueError(f"segments cover {start} of {layout.size} coordinates")
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return b"".join([*parts, CHECKSUM.pack(digest.intdigest() & 0xFFFFFFFF)])


def encode_segment(layout: Layout, segment: Coded, start: int) -> list[bytes | memoryview]:
    size, indices = segment.size, segment.indices
    if segment.rank is not None:
        count = int(factor_counts(layer_at(layout, start, size), segment.rank).sum())
        return [SEGMENT.pack(IndexCodec.FACTORS, segment.codec.code, WHOLE, size, count, 0), segment.body]
    count = size if indices is None else indices.size
    grouping = BY_LAYER if segment.by_layer else WHOLE
    if indices is None:
        kind, index = IndexCodec.ALL, b""
    elif segment.seed is not None:
        counts = group_counts(layout, indices, count, start, size, segment.by_layer)
        kind, index = IndexCodec.SEED, struct.pack("<Q", segment.seed) + counts.astype("<u4").tobytes()
    else:
        kind, index = pack(indices, size)
    if len(index) + len(segment.body) > 4 * size:  # near density 1: dense float32 is shorter, and holds any value
        counts = group_counts(layout, indices, count, start, size, segment.by_layer)
        dense = np.zeros(size, "<f4")
        values = segment.codec.decode(memoryview(segment.body), counts)
        dense[slice(None) if indices is None else indices] = values
        return [SEGMENT.pack(IndexCodec.ALL, VALUES["f32"].code, WHOLE, size, size, 0), dense.tobytes()]
    return [SEGMENT.pack(kind, segment.codec.code, grouping, size, count, len(index)), index, segment.body]


def decode(payload: bytes, layout: Layout) -> SparseUpdate:
    """Reads and checks a payload.

    Args:
        payload: what :func:`encode` gave, or anything else.
        layout: the receiver's own; the payload must have been made for the same.

    Raises:
        PayloadError: for any fault; nothing larger than a few times the layout has been allocated by then.
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
    if CHECKSUM.unpack(view[-CHECKSUM.size :])[0] != xxhash.xxh3_64_intdigest(body) & 0xFFFFFFFF:
        raise PayloadError("payload is damaged: its checksum does not match")
    if fingerprint != layout.fingerprint:
        raise PayloadError(f"payload is for layout {fingerprint:016x}, not {layout.fingerprint:016x}")
    most = 2 * len(layout.layers) + 2  # every layer alone, dense neighbours between, and the buffers
    if segments > most:  # each costs time that its few bytes do not show
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


def decode_segment(rest: memoryview, layout: Layout, start: int) -> tuple[Segment, memoryview]:
    if len(rest) < SEGMENT.size:
        raise PayloadError(f"segment at {start} is cut off")
    kind, code, grouping, size, count, length = SEGMENT.unpack_from(rest)
    rest = rest[SEGMENT.size :]
    if not 0 < size <= layout.size - start or count > size or length > len(rest):
        raise PayloadError(f"segment at {start}: {count} values of {size} coordinates, {length} bytes of indices")
    if code not in CODECS or grouping not in (WHOLE, BY_LAYER) or kind not in KINDS:
        raise PayloadError(f"segment at {start}: unknown coding {kind}/{code}/{grouping}")
    index, rest = rest[:length], rest[length:]
    indices, layer = None, None
    if kind == IndexCodec.FACTORS:
        layer = layer_at(layout, start, size)
        counts = checked_factors(layer, count, length, grouping)
    else:
        indices = decode_indices(IndexCodec(kind), index, layout, start, size, count, grouping == BY_LAYER)
        counts = group_counts(layout, indices, count, start, size, grouping == BY_LAYER)
    wanted = CODECS[code].size(counts)
    if wanted > len(rest):
        raise PayloadError(f"segment at {start}: values are cut off, {len(rest)} of {wanted} bytes")
    values = CODECS[code].decode(rest[:wanted], counts)
    if layer is not None and np.isfinite(values).all():
        values = product(values, layer)
    if not np.isfinite(values).all():
        raise PayloadError(f"segment at {start}: a value is not finite")
    return Segment(start, size, indices, values), rest[wanted:]


def layer_at(layout: Layout, start: int, size: int) -> Entry:
    """The layer of the layout that is exactly there, and has factors."""
    for entry in layout.layers:
        if (entry.start, entry.size) == (start, size) and len(entry.shape) >= 2:
            return entry
    raise IndexFault(f"factors for {size} coordinates that are no matrix")


def checked_factors(layer: Entry, count: int, length: int, grouping: int) -> np.ndarray:
    """The groups of a factored segment's values, if its header makes sense."""
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
    """The seeded indices of consecutive groups, as one sorted array."""
    starts = sizes.cumsum() - sizes
    drawn = [
        draw(seed, g, int(k), int(n)) + int(s) for g, (k, n, s) in enumerate(zip(counts, sizes, starts, strict=True))
    ]
    return np.concatenate(drawn)
