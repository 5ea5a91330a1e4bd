import contextlib
import math
import struct
import tracemalloc

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.catalogue import VALUES
from fedsparse.compression import ClientState, PayloadError, UpdateCodec, decode
from fedsparse.compression import indices as module
from fedsparse.compression.indices import IndexCodec, pack, unpack
from fedsparse.compression.values import F16, F32, Sign, value_codec
from fedsparse.compression.wire import BY_LAYER, HEADER, SEGMENT, WHOLE, Coded, bind, binding, checksum, encode

from .common import draw_vector, layout_of, layout_of_shapes

LAYOUT = layout_of(500, 20, 300, buffers=(8,))


def payload_of(compressor="topk", density=0.05, values="f32", scope="global", layout=LAYOUT, seed=0) -> bytes:
    codec = UpdateCodec(layout, compressor, density, scope, values)
    return codec.encode(draw_vector("normal", layout.size, seed), ClientState(), round=3, seed=seed)[0]


def resigned(payload: bytes) -> bytes:
    """``payload`` with a checksum that matches, as an attacker would send it."""
    return payload[:-4] + checksum(payload[:-4])


def changed(payload: bytes, at: int, new: bytes) -> bytes:
    return resigned(payload[:at] + new + payload[at + len(new) :])


@given(st.integers(1, 3000), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_any_set_of_indices_comes_back(size, share, seed):
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.choice(size, max(1, round(share * size)), replace=False))
    codec, body = pack(indices, size)
    if codec is IndexCodec.ALL:
        assert indices.size == size
    else:
        assert np.array_equal(unpack(codec, memoryview(body), indices.size, size), indices)


@pytest.mark.parametrize("indices", [[0], [999_999], [0, 999_999], list(range(3000)), list(range(997_000, 1_000_000))])
def test_extreme_indices_come_back(indices):
    wanted = np.array(indices)
    codec, body = pack(wanted, 1_000_000)
    assert np.array_equal(unpack(codec, memoryview(body), wanted.size, 1_000_000), wanted)


def test_more_indices_than_one_pcodec_chunk_come_back():
    wanted = np.sort(np.random.default_rng(0).choice(20_000_000, 1_500_000, replace=False))
    codec, body = pack(wanted, 20_000_000)
    assert codec is IndexCodec.GAPS
    assert np.array_equal(unpack(codec, memoryview(body), wanted.size, 20_000_000), wanted)


def test_dense_values_are_read_in_place_at_aligned_addresses():
    update = decode(payload_of("none"), LAYOUT)
    assert all(s.values.flags.aligned and not s.values.flags.owndata for s in update.segments)


@pytest.mark.parametrize("size", [25_000, 200_000, 1_000_000])
@pytest.mark.parametrize("density", [0.002, 0.01, 0.05, 0.2])
def test_uniform_indices_cost_at_most_six_percent_more_than_their_entropy(size, density):
    k = round(size * density)
    indices = np.sort(np.random.default_rng(k).choice(size, k, replace=False))
    entropy = (math.lgamma(size + 1) - math.lgamma(k + 1) - math.lgamma(size - k + 1)) / math.log(2)
    assert 8 * len(pack(indices, size)[1]) <= 1.06 * entropy


@pytest.mark.parametrize("size", [300, 10_000, 100_000])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("together", [1, 100])
def test_no_other_coding_of_the_indices_or_their_complement_is_much_shorter(size, share, together):
    blocks = np.random.default_rng(size).random(size // together) < share
    chosen = np.repeat(blocks, together)
    _, body = pack(np.flatnonzero(chosen), size)
    lengths = [(size + 7) // 8]
    for bits in (chosen, ~chosen):
        gaps = (np.diff(np.flatnonzero(bits), prepend=-1) - 1).astype(np.uint32)
        if gaps.size:
            lengths.append(len(module.pack_gaps(gaps)))
            if gaps.size <= module.RICE_LIMIT and bits.mean() <= 0.5:
                lengths.append(len(module.pack_rice(gaps, size)))
    assert len(body) <= 1.12 * min(lengths) + 12


def test_indices_at_even_density_become_a_bitmap():
    indices = np.flatnonzero(np.random.default_rng(0).random(10_000) < 0.5)
    codec, body = pack(indices, 10_000)
    assert len(body) <= 1250
    assert codec is IndexCodec.BITMAP


@pytest.mark.parametrize("size", [50_000, 1_000_000])
def test_signs_at_one_percent_take_three_hundred_times_fewer_bytes_than_dense(size):
    layout = layout_of(size)
    assert 4 * size >= 300 * len(payload_of(density=0.01, values="sign", layout=layout))


def test_a_payload_names_its_round_and_layout():
    update = decode(payload_of(), LAYOUT)
    assert update.round == 3
    with pytest.raises(PayloadError, match="payload is for layout"):
        decode(payload_of(), layout_of(499, 21, 300, buffers=(8,)))


@pytest.mark.parametrize("compressor", ["none", "topk", "randomk"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_add_to_adds_the_weighted_dense_update_in_the_accumulators_precision(compressor, dtype, kind):
    update = decode(payload_of(compressor), LAYOUT)
    start = np.random.default_rng(0).standard_normal(LAYOUT.size).astype(dtype)
    accumulator = start.copy() if kind == "array" else torch.from_numpy(start.copy())
    update.add_to(accumulator, 0.3)
    expected = start + update.to_dense().astype(dtype) * dtype(0.3)
    assert np.array_equal(np.asarray(accumulator), expected)


def test_a_checksum_is_the_low_half_of_xxh3_of_all_parts_together():
    data = bytes(range(200))
    low_half = (xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF).to_bytes(4, "little")
    assert checksum(data) == checksum(data[:7], memoryview(data)[7:]) == low_half


def test_many_tiny_segments_are_refused_before_they_cost_time():
    sizes = [100] * 50
    layout, one = layout_of(*sizes), (7).to_bytes(8, "little") + (1).to_bytes(4, "little")
    for count, accepted in ((102, True), (103, False), (500, False)):
        segments = SEGMENT.pack(IndexCodec.SEED, 0, BY_LAYER, 1, 1, 12) + one + bytes(4)
        rest = SEGMENT.pack(IndexCodec.GAPS, 0, WHOLE, 5000 - (count - 1), 0, 0)
        header = HEADER.pack(b"fsp", 1, 0, count, layout.fingerprint, 1)
        payload = resigned(header + segments * (count - 1) + rest + bytes(4))
        with contextlib.nullcontext() if accepted else pytest.raises(PayloadError, match="no more than 102"):
            decode(payload, layout)


def test_segments_must_cover_the_layout():
    with pytest.raises(ValueError, match="cover 5 of 828"):
        encode(LAYOUT, 1, [Coded.dense(np.zeros(5, np.float32), F32())])


@pytest.mark.parametrize("codec", [value_codec(name) for name in VALUES])
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_value_codings_keep_their_declared_length_and_precision(codec, n, seed):
    values = draw_vector("heavy-tailed", n, seed)
    counts = np.array([0, n // 3, n - n // 3])
    body = codec.encode(values, counts, 0)
    assert len(body) == codec.size(counts)
    back = codec.decode(memoryview(body), counts)
    assert back.dtype == np.float32
    if isinstance(codec, F32):
        assert back.tobytes() == values.tobytes()
    elif isinstance(codec, F16):
        assert np.array_equal(back, np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32))
    elif isinstance(codec, Sign):
        assert np.array_equal(back < 0, values < 0)
        for a, b in ((0, n // 3), (n // 3, n)):
            if a < b:
                assert np.abs(back[a:b]) == pytest.approx(np.abs(values[a:b]).mean(), rel=1e-6)


FIRST = HEADER.size  # of the first segment's header
FAULTS = {
    "empty": (lambda p: b"", "payload of 0 bytes"),
    "cut": (lambda p: p[:-9], "checksum"),
    "too long": (lambda p: p + bytes(5000), "payload of"),
    "another format": (lambda p: b"zip" + p[3:], "starts with b'zip'"),
    "a later version": (lambda p: changed(p, 3, b"\2"), "version 2"),
    "unknown flags": (lambda p: changed(p, 4, b"\1"), "flags 1"),
    "a flipped bit": (lambda p: p[:40] + bytes([p[40] ^ 1]) + p[41:], "checksum"),
    "no segment": (lambda p: changed(p, 6, b"\0"), "covers 0 of 828"),
    "a segment too few": (lambda p: changed(p, 6, b"\1"), "covers 820 of 828 coordinates"),
    "a segment too many": (lambda p: changed(p, 6, b"\3"), "cut off"),
    "trailing bytes": (lambda p: resigned(p[:-4] + b"xyz" + p[-4:]), "3 bytes trail"),
    "an unknown index codec": (lambda p: changed(p, FIRST, b"\x09"), "unknown coding 9/0/0"),
    "an unknown value codec": (lambda p: changed(p, FIRST + 1, b"\x63"), "unknown coding"),
    "an unknown grouping": (lambda p: changed(p, FIRST + 2, b"\3"), "unknown coding"),
    "rows of several entries": (lambda p: changed(p, FIRST + 2, b"\2"), "rows of a segment that is no whole entry"),
    "a segment of nothing": (lambda p: changed(p, FIRST + 4, bytes(4)), "values of 0 coordinates"),
    "a segment beyond the layout": (lambda p: changed(p, FIRST + 4, b"\xff" * 4), "4294967295 coordinates"),
    "more values than coordinates": (lambda p: changed(p, FIRST + 8, b"\xff" * 4), "4294967295 values"),
    "more index bytes than there are": (lambda p: changed(p, FIRST + 12, b"\xff" * 4), "4294967295 bytes of indices"),
    "a NaN": (lambda p: changed(p, len(p) - 8, b"\xff" * 4), "not finite"),
    "an infinity": (lambda p: changed(p, len(p) - 8, struct.pack("<f", np.inf)), "not finite"),
    "all values but a count": (lambda p: changed(p, FIRST, b"\0"), "where all 820 are meant"),
    "a seed of the wrong length": (lambda p: changed(p, FIRST, b"\4"), "seed of the wrong length"),
    "a bitmap of the wrong length": (lambda p: changed(p, FIRST, b"\1"), "bitmap of 820 coordinates"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_in_one_line_that_names_it(name):
    damage, message = FAULTS[name]
    with pytest.raises(PayloadError, match=message) as caught:
        decode(damage(payload_of()), LAYOUT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", [*module.OTHERS, *module.OTHERS.values(), IndexCodec.BITMAP])
def test_bytes_after_the_indices_are_refused(codec):
    layout = layout_of(5000)
    few = np.sort(np.random.default_rng(1).choice(5000, 600, replace=False))
    gaps = (np.diff(few, prepend=-1) - 1).astype(np.uint32)
    bitmap = np.zeros(5000, bool)
    bitmap[few] = True
    direct = {other: direct for direct, other in module.OTHERS.items()}
    body = {
        IndexCodec.GAPS: lambda: module.pack_gaps(gaps),
        IndexCodec.RICE: lambda: module.pack_rice(gaps, 5000),
        IndexCodec.BITMAP: lambda: np.packbits(bitmap).tobytes(),
    }[direct.get(codec, codec)]()
    indices = np.flatnonzero(~bitmap) if codec in direct else few
    k = indices.size
    assert np.array_equal(unpack(codec, memoryview(body), k, 5000), indices)
    for wrong, count in ((body + b"\0", k), (body[:-1], k), (body, k - 1), (body, k + 1), (b"", k)):
        header = HEADER.pack(b"fsp", 1, 0, 1, layout.fingerprint, 1)
        segment = SEGMENT.pack(codec, 0, 0, 5000, count, len(wrong))
        with pytest.raises(PayloadError):
            decode(resigned(header + segment + wrong + bytes(4 * count) + bytes(4)), layout)


@pytest.mark.parametrize("size", [599, 590])
def test_an_index_beyond_the_segment_is_refused(size):
    indices = np.concatenate([np.arange(300) * 2, [599]])
    for codec, body in ((IndexCodec.GAPS, "pack_gaps"), (IndexCodec.RICE, "pack_rice")):
        gaps = (np.diff(indices, prepend=-1) - 1).astype(np.uint32)
        coded = module.pack_gaps(gaps) if body == "pack_gaps" else module.pack_rice(gaps, 600)
        with pytest.raises(module.IndexFault):
            unpack(codec, memoryview(coded), indices.size, size)


def test_a_payload_damaged_without_a_new_checksum_never_becomes_an_update():
    payload, rng = payload_of(), np.random.default_rng(0)
    for at in range(len(payload)):
        flipped = payload[:at] + bytes([payload[at] ^ (1 << rng.integers(8))]) + payload[at + 1 :]
        with pytest.raises(PayloadError):
            decode(flipped, LAYOUT)
        with pytest.raises(PayloadError):
            decode(payload[:at], LAYOUT)


@pytest.mark.parametrize("compressor", ["topk", "randomk"])
def test_hostile_counts_allocate_no_more_than_a_few_times_the_layout(compressor):
    layout = layout_of(200_000)
    payload = payload_of(compressor, 0.01, layout=layout)
    counts = [2**32 - 1, 200_000, 199_999, 100_000]
    tracemalloc.start()
    for count in counts:
        for at in (FIRST + 4, FIRST + 8, FIRST + 12, FIRST + SEGMENT.size + 8):
            with contextlib.suppress(PayloadError):  # some changes only give other indices
                decode(changed(payload, at, struct.pack("<I", count)), layout)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 4 * layout.size


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("compressor", "density", "scope"),
    [("none", 1.0, "layer"), ("topk", 0.5, "global"), ("topk", 0.9999, "layer"), ("randomk", 0.5, "layer")],
)
def test_decoding_takes_at_most_three_models_of_memory(values, compressor, density, scope):
    layout = layout_of(200_000, 256, 2560, 10, buffers=(8,))
    payload = payload_of(compressor, density, values, scope, layout)
    decode(payload, layout)
    tracemalloc.start()
    try:
        update = decode(payload, layout)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert update.segments
    assert peak < 3 * 4 * layout.size


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", ["int8", "int4", "ternary", "sign", "two-means", "eden", "f32", "bf16", "f16"])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("compressor", ["none", "lowrank"])
def test_a_hostile_scale_or_factor_is_refused_without_a_warning(values, scale, compressor):
    if compressor == "lowrank" and values not in ("f32", "bf16", "f16"):
        return
    layout = layout_of_shapes((40, 30))
    payload = bytearray(payload_of(compressor, 0.2, values, layout=layout))
    body = payload[HEADER.size + SEGMENT.size : -4]
    many = np.frombuffer(body[: len(body) // 4 * 4], "<f4").copy()
    many[2 if values == "eden" else 0] = scale
    payload = payload[: HEADER.size + SEGMENT.size] + many.tobytes() + body[many.nbytes :]
    with contextlib.suppress(PayloadError):
        for segment in decode(resigned(bytes(payload) + bytes(4)), layout).segments:
            assert np.isfinite(segment.values).all()


@pytest.mark.parametrize("first", [0x10, 0x01, 0x21, 0xF0])
def test_a_chunk_of_pcodec_in_another_mode_or_delta_is_refused_before_pcodec_sees_it(first):
    gaps = module.pack_gaps(np.full(1000, 96, np.uint32))
    with pytest.raises(module.IndexFault, match="another mode"):
        unpack(IndexCodec.GAPS, memoryview(bytes([first]) + gaps[1:]), 1000, 100_000)


def test_the_library_writes_the_version_of_pcodecs_format_that_a_payload_means():
    assert module.FileCompressor().write_header() == module.PCODEC_VERSION


def test_a_payload_bound_to_one_client_and_run_is_refused_from_any_other():
    mine, others = binding("run", 3), (binding("run", 4), binding("other run", 3), 0)
    payload = bind(payload_of(), mine)
    assert decode(payload, LAYOUT, mine).round == 3
    for other in others:
        with pytest.raises(PayloadError, match="checksum does not match"):
            decode(payload, LAYOUT, other)
