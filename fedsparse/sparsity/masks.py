"""A topology as bytes: for each layer the shortest of a bitmap, coded gaps, and the difference from a known topology.

    "fsm" format:u8 version:u32 base:u64 hash:u64                 little-endian; base is 0 if no layer needs one
    a prunable layer:  coding:u8 count:u32 length:u32, ``length`` bytes of indices
    xxh3:u32    the low half of XXH3-64 of all bytes before it

Each layer has a coding of its own because the densities of layers differ under ERK.
"""

import struct
from collections.abc import Sequence

import numpy as np
import torch

from fedsparse.compression.indices import OTHERS, IndexCodec, IndexFault, pack, unpack
from fedsparse.compression.wire import CHECKSUM, PayloadError, checksum
from fedsparse.sparsity.topology import Layer, Topology

MAGIC, FORMAT = b"fsm", 1
HEADER = struct.Struct("<3sBIQQ")
LAYER = struct.Struct("<BII")
CODECS = (IndexCodec.ALL, IndexCodec.BITMAP, *OTHERS, *OTHERS.values())
DIFFERENCE = 128
"""A flag in a layer's coding: the indices are those of the weights that differ from the base."""


def encode_mask(topology: Topology, base: Topology | None = None) -> bytes:
    """The bytes of a mask for a receiver that holds ``base``; ``base`` is None when the sender cannot know that."""
    parts, new, old = [b""], topology.mask.cpu().numpy(), base.mask.cpu().numpy() if base else None
    uses_base = False
    for layer in topology.layers:
        if layer.dense:
            continue
        coding, count, body = _code(new[layer.slice])
        if old is not None:
            difference = _code(new[layer.slice] ^ old[layer.slice])
            if len(difference[2]) < len(body):
                (coding, count, body), uses_base = difference, True
                coding |= DIFFERENCE
        parts += [LAYER.pack(coding, count, len(body)), body]
    base_hash = base.hash if base is not None and uses_base else 0
    parts[0] = HEADER.pack(MAGIC, FORMAT, topology.version, base_hash, topology.hash)
    data = b"".join(parts)
    return data + checksum(data)


def decode_mask(data: bytes, layers: Sequence[Layer], parameters: int, base: Topology | None = None) -> Topology:
    """Reads and checks a mask.

    Args:
        data: the bytes from ``encode_mask``; any other bytes raise.
        layers: the receiver's own, of the same model.
        parameters: ``layout.parameters``.
        base: the topology that the receiver holds.

    Returns:
        A topology on the CPU.

    Raises:
        PayloadError: the data have any fault, or the sender had another base or other layers.
    """
    if len(data) < HEADER.size + CHECKSUM.size:
        raise PayloadError(f"a mask of {len(data)} bytes")
    view = memoryview(data)
    rest = view[HEADER.size : -CHECKSUM.size]
    if view[-CHECKSUM.size :] != checksum(view[: -CHECKSUM.size]):
        raise PayloadError("mask is damaged: its checksum does not match")
    magic, form, version, base_hash, own_hash = HEADER.unpack_from(data)
    if magic != MAGIC or form != FORMAT:
        raise PayloadError(f"mask starts with {magic!r}, format {form}; this is {MAGIC!r}, format {FORMAT}")
    if base_hash and (base is None or base.hash != base_hash):
        held = f"{base.hash:016x}" if base else "none"
        raise PayloadError(f"mask is a difference from topology {base_hash:016x}; the receiver holds {held}")
    mask = np.ones(parameters, np.bool_)
    for layer in layers:
        if not layer.dense:
            old = base.mask[layer.slice].cpu().numpy() if base_hash and base else None
            mask[layer.slice], rest = _read_layer(rest, layer, old)
    topology = Topology(tuple(layers), torch.from_numpy(mask), version)
    if len(rest) or topology.hash != own_hash:
        raise PayloadError(f"mask is not one of the receiver's layers ({len(rest)} bytes trail)")
    return topology


def _code(bits: np.ndarray) -> tuple[int, int, bytes]:
    """The shortest coding of one layer: codec, count of True, indices."""
    indices = np.flatnonzero(bits)
    codec, body = pack(indices, bits.size)
    return codec, indices.size, body


def _read_layer(rest: memoryview, layer: Layer, old: np.ndarray | None) -> tuple[np.ndarray, memoryview]:
    """One layer's bits, and the rest of the bytes."""
    if len(rest) < LAYER.size:
        raise PayloadError(f"mask of {layer.name} is cut off")
    coding, count, length = LAYER.unpack_from(rest)
    rest = rest[LAYER.size :]
    codec, difference = coding & ~DIFFERENCE, coding & DIFFERENCE
    if codec not in CODECS or length > len(rest) or count > layer.size or (difference and old is None):
        raise PayloadError(f"mask of {layer.name}: coding {coding}, {count} of {layer.size} weights, {length} bytes")
    if codec == IndexCodec.ALL:
        if length or count != layer.size:
            raise PayloadError(f"mask of {layer.name}: {count} weights and {length} bytes where all are meant")
        bits = np.ones(layer.size, np.bool_)
    else:
        bits = np.zeros(layer.size, np.bool_)
        try:
            bits[unpack(IndexCodec(codec), rest[:length], count, layer.size)] = True
        except IndexFault as fault:
            raise PayloadError(f"mask of {layer.name}: {fault}") from None
    return (bits ^ old if difference and old is not None else bits), rest[length:]
