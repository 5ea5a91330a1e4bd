"""What honest senders send in every coding, and how receivers read and check it: the seeds of ``benchmarks.fuzz``."""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from fedsparse.catalogue import VALUES
from fedsparse.compression import ClientState, PayloadError, SparseUpdate, UpdateCodec
from fedsparse.compression.few_bits import coded_levels
from fedsparse.compression.indices import OTHERS, IndexCodec, IndexFault, pack_gaps, pack_rice, unpack
from fedsparse.compression.values import F32
from fedsparse.compression.wire import (
    BY_ROW,
    CHECKSUM,
    HEADER,
    SEGMENT,
    WHOLE,
    Coded,
    bind,
    binding,
    decode,
    decode_segment,
    encode,
)
from fedsparse.sparsity import Topology, masks
from fedsparse.sparsity.readjust import Report
from fedsparse.sparsity.reports import decode_report, encode_report, report_layout
from fedsparse.sparsity.topology import Layer
from fedsparse.vector import Entry, Layout

ROUND = 3
MINE, ANOTHERS = binding("run", 3), binding("run", 4)

Fields = list[tuple[int, int]]


class Source(NamedTuple):
    """What an honest sender sends, and how its receiver reads it.

    Attributes:
        data: ends with a checksum, which is ``bound`` to the sender; None for no checksum.
        read: decodes such bytes, or raises PayloadError.
        check: asserts that what was decoded is well-formed.
        fields: the place and width of each number in its headers.
        size: coordinates of the model.
        lie: makes of damaged bytes what an attacker would send, who knows of more than checksums.
    """

    data: bytes
    read: Callable[[bytes], Any]
    check: Callable[[Any], None]
    fields: Fields
    size: int
    bound: int | None = MINE
    lie: Callable[[bytes], bytes] = bytes


def layout_of(*shapes: tuple[int, ...], buffers: int) -> Layout:
    """A layout of parameters of these shapes, and one buffer."""
    entries, start = list[Entry](), 0
    for i, shape in enumerate(shapes):
        entries.append(Entry(f"layer{i}", shape, start, math.prod(shape)))
        start += entries[-1].size
    return Layout((*entries, Entry("buffer", (buffers,), start, buffers)), start, start + buffers)


SMALL = layout_of((25, 20), (20,), (10, 30), buffers=8)
MIDDLE = layout_of((60, 100), (500,), buffers=8)
CONVOLUTIONS = layout_of((40, 30), (7,), (16, 3, 3, 3), (20, 50), buffers=5)
TABLE = layout_of((1000, 40), (16, 40), buffers=4)
WIDE = layout_of((400, 500), (256,), (10, 256), buffers=8)


def payload_sources() -> Iterator[Source]:
    """Updates by every coding of indices and values."""
    few = [("none", 1.0), ("topk", 0.01), ("topk", 0.5), ("topk", 0.9), ("randomk", 0.1)]
    many = [("none", 1.0), ("topk", 0.02), ("topk", 0.6), ("topk", 0.97), ("randomk", 0.5)]
    for layout, choices in ((SMALL, few), (MIDDLE, few), (TABLE, few[:1]), (WIDE, many)):
        for (compressor, density), values, scope in product(choices, VALUES, ("global", "layer")):
            yield payload_source(layout, compressor, density, values, scope)
    yield payload_source(MIDDLE, "topk", 0.02, "int2", "chunk")
    for layout, bits in product((SMALL, WIDE), (8, 4, 2, 1)):
        yield few_bits_source(layout, bits)
    for compressor in ("lowrank", "powersgd"):
        for values in ("f32", "f16", "bf16", "int8"):
            for layout in (CONVOLUTIONS, CONVOLUTIONS, WIDE):
                yield payload_source(layout, compressor, 0.2, values, "global")


def few_bits_source(layout: Layout, bits: int) -> Source:
    """Weights in levels, with a step for each row of the first entry and one for each other entry."""
    rng, segments = np.random.default_rng(0), list[Coded]()
    for entry in layout.trainable:
        rows = entry is layout.entries[0]
        counts = np.array(entry.row_sizes if rows else [entry.size])
        levels = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), entry.size, np.int8)
        levels = 2 * levels + 1 if bits == 1 else levels
        codec, body = coded_levels(levels, rng.random(len(counts), np.float32), bits)
        segments.append(Coded(entry.size, None, codec, body, counts, BY_ROW if rows else WHOLE))
    segments.append(Coded.dense(np.zeros(layout.size - layout.parameters, np.float32), F32()))
    payload = encode(layout, ROUND, segments)
    read = partial(decode, layout=layout, bound=MINE)
    return Source(bind(payload, MINE), read, check_update, payload_fields(payload, layout), layout.size)


def payload_source(layout: Layout, compressor: str, density: float, values: str, scope: str) -> Source:
    update = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    if layout is TABLE:
        update[: layout.entries[0].size].reshape(1000, -1)[::3] = 0  # rows that are left out
    payload, _ = UpdateCodec(layout, compressor, density, scope, values).encode(
        update, ClientState(), round=ROUND, seed=1
    )
    read = partial(decode, layout=layout, bound=MINE)
    return Source(bind(payload, MINE), read, check_update, payload_fields(payload, layout), layout.size)


def payload_fields(payload: bytes, layout: Layout) -> Fields:
    """The numbers in the headers of a valid payload."""
    fields, start = [(3, 1), (4, 2), (6, 2), (8, 8), (16, 4)], 0
    rest = memoryview(payload)[HEADER.size : -CHECKSUM.size]
    while len(rest) and len(fields) < 60:
        at = len(payload) - CHECKSUM.size - len(rest)
        fields += [(at, 1), (at + 1, 1), (at + 2, 2), (at + 4, 4), (at + 8, 4), (at + 12, 4), (at + SEGMENT.size, 4)]
        segment, rest = decode_segment(rest, layout, start)
        start += segment.size
    return fields


def check_update(update: SparseUpdate) -> None:
    """Every coordinate of the layout is covered once, by a finite value or by none."""
    start = 0
    for s in update.segments:
        assert s.start == start
        assert s.values.dtype == np.float32
        assert np.isfinite(s.values).all()
        check_indices(s.indices, len(s.values), s.size)
        start += s.size
    assert start == update.layout.size


def check_indices(indices: np.ndarray | None, count: int, size: int) -> None:
    if indices is None:
        assert count == size
    elif count:
        assert len(indices) == count
        assert indices[0] >= 0
        assert indices[-1] < size
        assert (indices[1:] > indices[:-1]).all()


def report_sources() -> Iterator[Source]:
    """Reports on few and on most coordinates."""
    for layout in (SMALL, MIDDLE, TABLE, WIDE):
        for share in (0.0, 0.01, 0.3, 0.9, 1.0):
            generator = torch.Generator().manual_seed(1)
            indices = (torch.rand(layout.parameters, generator=generator) < share).nonzero().squeeze(1)
            values = 1e-12 * torch.randn(indices.shape, generator=generator)
            data = bind(encode_report(Report(indices, values), layout, ROUND), MINE)
            fields = payload_fields(data, report_layout(layout))
            read = partial(decode_report, layout=layout, round=ROUND, bound=MINE)
            yield Source(data, read, partial(check_report, layout.parameters), fields, layout.size)


def check_report(parameters: int, report: Report) -> None:
    assert report.values.isfinite().all()
    check_indices(report.indices.numpy(), len(report.values), parameters)


LAYERS = (
    Layer("first", (16, 1, 5, 5), 0, 400, dense=True),
    Layer("conv", (32, 16, 5, 5), 400, 12_800),
    Layer("hidden", (120, 512), 13_300, 61_440),  # after a bias
    Layer("wide", (300, 500), 74_860, 150_000),
    Layer("last", (10, 120), 224_860, 1200, dense=True),
)
PARAMETERS = 226_070
PRUNABLE = [layer for layer in LAYERS if not layer.dense]


def mask_sources() -> Iterator[Source]:
    """Masks of many densities, each in every coding that can hold it: whole, or as the difference from a base."""
    generator = torch.Generator().manual_seed(1)

    def topology(*densities: float) -> Topology:
        shares = dict(zip((layer.name for layer in PRUNABLE), densities, strict=True))
        counts = [round(layer.size * shares.get(layer.name, 1)) for layer in LAYERS]
        return Topology.random(LAYERS, PARAMETERS, counts, generator)

    base = topology(0.5, 0.2, 0.05)
    changed = base.mask.clone()
    changed[400:2400] ^= torch.rand(2000, generator=generator) < 0.3
    changed[74_860:224_860] = torch.rand(150_000, generator=generator) < 0.05
    sent = [topology(*d) for d in ((0.5, 0.2, 0.05), (0.001, 0.0, 0.9), (1.0, 0.97, 0.5), (0.02, 0.0001, 0.003))]
    sent += [base, Topology(LAYERS, changed, 4)]
    for new in sent:
        for known in (None, base):
            data = masks.encode_mask(new, known)
            fields, at = [(3, 1), (4, 4), (8, 8), (16, 8)], masks.HEADER.size
            for _ in PRUNABLE:
                fields += [(at, 1), (at + 1, 4), (at + 5, 4)]
                at += masks.LAYER.size + masks.LAYER.unpack_from(data, at)[2]
            read = partial(masks.decode_mask, layers=LAYERS, parameters=PARAMETERS, base=known)
            yield Source(data, read, check_mask, fields, PARAMETERS, bound=0, lie=partial(rehashed, known))


def check_mask(topology: Topology) -> None:
    assert topology.mask.shape == (PARAMETERS,)
    assert topology.mask[~topology.prunable].all()


def rehashed(base: Topology | None, data: bytes) -> bytes:
    """A damaged mask with the hash of the weights that it names now; unchanged where it cannot be read so far."""
    mask, at = np.ones(PARAMETERS, np.bool_), masks.HEADER.size
    with suppress(struct.error, ValueError):
        for layer in PRUNABLE:
            coding, count, length = masks.LAYER.unpack_from(data, at)
            at += masks.LAYER.size + length
            kind, bits = IndexCodec(coding & ~masks.DIFFERENCE), np.zeros(layer.size, np.bool_)
            if count <= layer.size:
                body = memoryview(data)[at - length : at]
                bits[slice(None) if kind == IndexCodec.ALL else unpack(kind, body, count, layer.size)] = True
            mask[layer.slice] = bits ^ base.mask[layer.slice].numpy() if base and coding & masks.DIFFERENCE else bits
        own = struct.pack("<Q", Topology(LAYERS, torch.from_numpy(mask)).hash)
        return data[: masks.HEADER.size - 8] + own + data[masks.HEADER.size :]
    return data


def index_sources() -> Iterator[Source]:
    """Bodies of indices alone, so that more damage reaches pcodec and the Rice code."""
    rng, size = np.random.default_rng(1), 1_000_000
    for count in (1, 5, 100, 2000, 20_000):
        for share in (0.9, 0.3, 0.03):
            gaps = (rng.geometric(share, count) - 1).astype(np.uint32)
            read = partial(read_indices, IndexCodec.GAPS, count, size)
            yield Source(pack_gaps(gaps), read, bool, [(i, 1) for i in range(12)], size, None)
            few = gaps[:2000]
            read = partial(read_indices, IndexCodec.RICE, few.size, size)
            yield Source(pack_rice(few, int(few.sum()) + 2 * few.size), read, bool, [(0, 1), (1, 1)], size, None)


def read_indices(codec: IndexCodec, count: int, size: int, data: bytes) -> bool:
    """The bytes in their own coding, in that of the coordinates left out, and as a bitmap."""
    read = False
    for kind, wanted in ((codec, count), (OTHERS[codec], size - count), (IndexCodec.BITMAP, count)):
        with suppress(IndexFault):
            check_indices(unpack(kind, memoryview(data), wanted, size), wanted, size)
            read = True
    if not read:
        raise PayloadError("no indices")
    return True


SOURCES = {"payloads": payload_sources, "masks": mask_sources, "reports": report_sources, "indices": index_sources}
