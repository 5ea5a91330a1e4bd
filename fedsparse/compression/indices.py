"""Codes the coordinates of selected values in few bytes: sorted, distinct integers below ``size`` <-> bytes.

Golomb-Rice: Golomb, "Run-length encodings", IEEE Trans. Inf. Theory 12, 1966, in Rice's power-of-two case; parameter:
Kiely, "Selecting the Golomb parameter in Rice coding", JPL IPN Progress Report 42-159, 2004.
"""

import math
from enum import IntEnum

import numpy as np
import torch
from pcodec import ChunkConfig, DeltaSpec, ModeSpec
from pcodec.wrapped import FileCompressor, FileDecompressor

from fedsparse.compression.arrays import blocks


class IndexCodec(IntEnum):
    """How a segment names its coordinates; the number is the one in the wire format."""

    ALL = 0  # every coordinate: no bytes
    BITMAP = 1  # one bit a coordinate
    GAPS = 2  # distances between neighbours, entropy-coded by pcodec
    RICE = 3  # the same distances in a Golomb-Rice code, which has no tables, and so is shorter for few indices
    SEED = 4  # drawn at random: the seed, and a count for each group
    FACTORS = 5  # no bytes: the values are two factors of a whole layer
    OTHER_GAPS = 6  # GAPS of the coordinates left out, when fewer are left out than kept
    OTHER_RICE = 7  # RICE of the coordinates left out


OTHERS = {IndexCodec.GAPS: IndexCodec.OTHER_GAPS, IndexCodec.RICE: IndexCodec.OTHER_RICE}
RICE_LIMIT = 2048  # up to so many indices Rice is tried too (four times the time), because pcodec's tables cost bytes
PIECE = 1 << 18  # indices in one pcodec chunk, the most that fit in one page
PIECE_BYTES = 6 * PIECE  # more than any chunk of PIECE indices takes
CONFIG = ChunkConfig(compression_level=6, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())
PCODEC_VERSION = b"\x04\x01"
"""The version of pcodec's format that GAPS means. A payload does not repeat it; a test holds the library to it."""
CHUNK_START = 0
"""The first byte of each chunk of pcodec that the encoder writes: the classic mode and no delta. Other modes and deltas
are refused, because a few bytes of them make pcodec allocate hundreds of megabytes."""
GOLDEN = (1 + math.sqrt(5)) / 2


class IndexFault(ValueError):
    """The bytes of a set of indices have a fault; the message says in one line which."""


def pack(indices: np.ndarray, size: int) -> tuple[IndexCodec, bytes]:
    """Codes sorted, distinct int64 ``indices`` below ``size``, by the codec that needs the fewest bytes."""
    count = indices.size
    if count == size:
        return IndexCodec.ALL, b""
    if count == 0:
        return IndexCodec.GAPS, b""
    most = 2 * count > size
    gaps = (complement(indices, size) if most else indices).astype(np.uint32)
    gaps[1:] -= gaps[:-1] + np.uint32(1)
    codec, body = IndexCodec.GAPS, pack_gaps(gaps)
    if gaps.size <= RICE_LIMIT and len(rice := pack_rice(gaps, size)) <= len(body):
        codec, body = IndexCodec.RICE, rice
    if (size + 7) // 8 <= len(body):
        bits = np.zeros(size, np.bool_)
        bits[indices] = True
        return IndexCodec.BITMAP, np.packbits(bits).tobytes()
    return OTHERS[codec] if most else codec, body


def complement(indices: np.ndarray, size: int) -> np.ndarray:
    """The coordinates below ``size`` that are not among ``indices``, sorted."""
    rest = np.ones(size, np.bool_)
    rest[indices] = False
    return positions(rest)


def positions(bits: np.ndarray) -> np.ndarray:
    """Where ``bits`` are true, sorted: int64, but int32 where more than half of them are true.

    A received set of most coordinates then takes as much memory as the model, instead of twice as much.
    """
    count = int(np.count_nonzero(bits))
    if 2 * count <= bits.size:
        return np.flatnonzero(bits)
    found, at = np.empty(count, np.int32), 0
    for block in blocks(bits.size):
        here = np.flatnonzero(bits[block])
        found[at : at + here.size] = here + block.start
        at += here.size
    return found


def unpack(codec: IndexCodec, body: memoryview, count: int, size: int) -> np.ndarray:
    """The inverse of :func:`pack`: sorted, distinct indices below ``size``, of the dtype of ``positions``.

    Args:
        codec, body: received, and checked here.
        count: how many indices; the caller has checked that it is at most ``size``.

    Raises:
        IndexFault: the body has a fault.
    """
    for direct, other in OTHERS.items():
        if codec is other:
            return complement(unpack(direct, body, size - count, size), size)
    if codec is IndexCodec.BITMAP:
        return unpack_bitmap(body, count, size)
    if 2 * count > size:
        raise IndexFault(f"gaps of {count} of {size} coordinates; those of the other coordinates are fewer")
    gaps = (unpack_gaps if codec is IndexCodec.GAPS else unpack_rice)(body, count, size)
    # A gap is the distance to the neighbour minus one, so that any gaps give ascending indices. Gaps and their count
    # are below 2^32, so that their sum is below 2^64; a sum above 2^63 makes the last index negative, which is refused.
    indices = gaps.astype(np.int64)
    indices += 1
    indices[:1] -= 1
    torch.from_numpy(indices).cumsum_(0)  # NumPy takes 3 times as long
    if count and not 0 <= indices[-1] < size:
        raise IndexFault("an index lies beyond the segment")
    return indices


def unpack_bitmap(body: memoryview, count: int, size: int) -> np.ndarray:
    if len(body) != (size + 7) // 8:
        raise IndexFault(f"a bitmap of {size} coordinates in {len(body)} bytes")
    bits = np.unpackbits(np.frombuffer(body, np.uint8)).view(np.bool_)
    held = int(np.count_nonzero(bits))
    if held != count or bits[size:].any():
        raise IndexFault(f"a bitmap with {held} bits set for {count} values")
    return positions(bits[:size])


def pack_gaps(gaps: np.ndarray) -> bytes:
    """uint32 gaps as pcodec's bare chunks. The chunks have no count, because the segment has it."""
    parts = []
    for start in range(0, gaps.size, PIECE):
        chunk = FileCompressor().chunk_compressor(gaps[start : start + PIECE], CONFIG)
        parts += [chunk.write_meta(), chunk.write_page(0)]
    return b"".join(parts)


def unpack_gaps(body: memoryview, count: int, size: int) -> np.ndarray:
    gaps, at = np.empty(count, np.uint32), 0
    try:
        file, _ = FileDecompressor.new(PCODEC_VERSION)
        for start in range(0, count, PIECE):
            piece = gaps[start : start + PIECE]
            if body[at : at + 1] != bytes([CHUNK_START]):
                raise IndexFault("gaps in another mode of pcodec than the encoder's")
            chunk, read = file.chunk_decompressor(bytes(body[at : at + PIECE_BYTES]), "u32")
            at += read
            progress, read = chunk.read_page_into(bytes(body[at : at + PIECE_BYTES]), piece.size, piece)
            at += read
            if progress.n_processed != piece.size:
                raise IndexFault("too few gaps")
    except IndexFault:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as fault:  # pcodec's PanicException is a BaseException
        raise IndexFault(f"gaps that pcodec cannot read ({str(fault).splitlines()[0][:80]})") from None
    if at != len(body):
        raise IndexFault(f"{len(body) - at} bytes after the gaps")
    return gaps


def pack_rice(gaps: np.ndarray, size: int) -> bytes:
    """One byte for the parameter b, then bits: every gap >> b in unary, then the b low bits of every gap.

    Args:
        gaps: uint32, at least one and fewer than ``size``.
    """
    # Kiely 2004 for gaps of a geometric distribution: 2^b is the next power of two.
    spread = -math.log(GOLDEN - 1) / -math.log1p(-gaps.size / size)
    b = max(0, math.ceil(math.log2(spread)))
    ones = np.cumsum(gaps >> b, dtype=np.int64) + np.arange(gaps.size)
    unary = np.zeros(ones[-1] + 1, np.uint8)
    unary[ones] = 1
    low = np.unpackbits(gaps.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)[:, 32 - b :]
    return bytes([b]) + np.packbits(np.concatenate([unary, low.ravel()])).tobytes()


def unpack_rice(body: memoryview, count: int, size: int) -> np.ndarray:
    b = body[0] if len(body) else 32
    if b > 31 or count > RICE_LIMIT or 8 * (len(body) - 1) > count * (b + 1) + (size >> b) + 7:
        raise IndexFault("a Rice code that is too long for its counts")
    bits = np.unpackbits(np.frombuffer(body[1:], np.uint8))
    ones = np.flatnonzero(bits[: count + (size >> b)])[:count]  # no longer than a unary part can be
    end = int(ones[-1]) + 1 if ones.size else 0
    if ones.size != count or not 0 <= bits.size - end - b * count < 8 or bits[end + b * count :].any():
        raise IndexFault("a Rice code of the wrong length")
    low = np.zeros((count, 32), np.uint8)
    low[:, 32 - b :] = bits[end : end + b * count].reshape(count, b)
    high = np.diff(ones, prepend=-1) - 1
    return (high.astype(np.uint32) << b) + np.packbits(low, axis=1).view(">u4").ravel().astype(np.uint32)


def draw(seed: int, group: int, count: int, size: int) -> np.ndarray:
    """``count`` distinct random int64 indices below ``size``, sorted; the same on every machine and NumPy version."""
    return np.flatnonzero(draw_bits(seed, group, count, size))


def draw_bits(seed: int, group: int, count: int, size: int) -> np.ndarray:
    """The indices of :func:`draw` as a mask: bool, shape ``(size,)``.

    They come from the raw output of PCG64, because NumPy promises never to change it, unlike ``Generator.choice``.
    """
    chosen, left = np.zeros(size, np.bool_), min(count, size - count)  # for more than half, draws the rest
    bits, needed = np.random.PCG64(np.random.SeedSequence([seed, group])), left
    while needed:  # because a draw may repeat an index; drawing only the missing number keeps all sets equally likely
        for block in blocks(needed):
            chosen[bits.random_raw(block.stop - block.start) % np.uint64(size)] = True
        needed = left - int(np.count_nonzero(chosen))
    return chosen if left == count else ~chosen
