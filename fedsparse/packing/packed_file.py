"""A state dict in one file.

    "fspk" version:u8 length:u32, a zlib stream of so many bytes with the header as JSON       little-endian
    the bytes of each tensor in the order of the header
    xxh3:u32    the low half of XXH3-64 of all bytes before it

The header has an entry for each tensor: its name and shape, and either its dtype (its bytes follow as they are), or
the tensor that it is the same as, or its shared values: how many, of how many weights that are not 0, and how their
positions and codes are coded. Then the values follow as float32, the positions and the codes.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.wire import CHECKSUM, checksum
from fedsparse.errors import one_line
from fedsparse.packing.shared_weights import SharedWeights
from fedsparse.packing.streams import code_codes, code_positions, read_codes, read_positions

MAGIC, VERSION = b"fspk", 1
HEAD = struct.Struct("<4sBI")
MOST_HEADER = 1 << 24
"""Bytes of the header, once decompressed."""
MOST_WEIGHTS = 1 << 24
"""Elements that any file may declare; a larger one, so many times its bytes:"""
SPREAD = 1 << 12
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)}  # fmt: skip


class PackedFault(ValueError):
    """The bytes are no packed model; the message says in one line why."""


class Sizes(NamedTuple):
    """What a tensor of shared weights takes.

    Attributes:
        weights, kept, clusters: how many weights, how many that are not 0, and of how many values.
        entropy: bits of the weights at least, when each is coded for itself: of zeros and codes by their frequencies.
        huffman, ours: bytes of positions and codes in each coding, with the tables of the codes.
        stored: bytes of the shorter of both for positions and for codes, and of the values.
    """

    weights: int
    kept: int
    clusters: int
    entropy: float
    huffman: int
    ours: int
    stored: int


def pack_state(
    state: Mapping[str, Tensor | SharedWeights | str], vocabulary: str = ""
) -> tuple[bytes, dict[str, Sizes]]:
    """The bytes of a file, and the sizes of its shared weights.

    Args:
        state: by name a tensor, shared weights, or the name of an earlier tensor that is the same one.
        vocabulary: ``Dataset.vocabulary``, for the reader.
    """
    header, parts, sizes = list[dict[str, Any]](), list[bytes](), dict[str, Sizes]()
    for name, tensor in state.items():
        if isinstance(tensor, str):
            header.append({"name": name, "same": tensor})
        elif isinstance(tensor, SharedWeights):
            entry, bodies, sizes[name] = _coded(tensor)
            header.append({"name": name, **entry})
            parts += bodies
        else:
            dtype = str(tensor.dtype).removeprefix("torch.")
            header.append({"name": name, "shape": list(tensor.shape), "dtype": dtype})
            parts.append(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    squeezed = zlib.compress(json.dumps({"vocabulary": vocabulary, "tensors": header}).encode(), 9)
    data = b"".join([HEAD.pack(MAGIC, VERSION, len(squeezed)), squeezed, *parts])
    return data + checksum(data), sizes


def _coded(shared: SharedWeights) -> tuple[dict[str, Any], list[bytes], Sizes]:
    kept, clusters = np.flatnonzero(shared.codes), shared.values.size
    streams = code_positions(kept, shared.codes.size), code_codes(shared.codes[kept] - 1, clusters)
    huffman, ours = (sum(len(pair[i].body) for pair in streams) for i in (0, 1))
    positions, codes = (min(pair, key=lambda stream: len(stream.body)) for pair in streams)
    bodies = [shared.values.astype("<f4").tobytes(), positions.body, codes.body]
    counts = np.bincount(shared.codes)
    shares = counts[counts > 0] / max(shared.codes.size, 1)
    entropy = -float((shares * np.log2(shares)).sum()) * shared.codes.size
    entry = {"shape": list(shared.shape), "kept": kept.size, "clusters": clusters}
    entry |= {"positions": positions.header, "codes": codes.header}
    return entry, bodies, Sizes(shared.codes.size, kept.size, clusters, entropy, huffman, ours, sum(map(len, bodies)))


def unpack_state(data: bytes) -> tuple[dict[str, Tensor], str]:
    """The state dict of a file, and its vocabulary.

    Raises:
        PackedFault: the bytes are damaged, cut off, or no packed model.
    """
    try:
        return _unpacked(data)
    except PackedFault:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error, RuntimeError) as error:
        raise PackedFault(f"its content has a fault ({one_line(str(error))[:80] or type(error).__name__})") from None


def _unpacked(data: bytes) -> tuple[dict[str, Tensor], str]:
    if len(data) < HEAD.size + CHECKSUM.size or not data.startswith(MAGIC):
        raise PackedFault("is no packed model")
    _, version, length = HEAD.unpack_from(data)
    if version != VERSION:
        raise PackedFault(f"has version {version}; this program reads {VERSION}")
    view = memoryview(data)
    if view[-CHECKSUM.size :] != checksum(view[: -CHECKSUM.size]):
        raise PackedFault("is damaged or cut off: its checksum does not match")
    inflate = zlib.decompressobj()
    header = json.loads(inflate.decompress(view[HEAD.size : HEAD.size + length], MOST_HEADER))
    rest, left = view[HEAD.size + length : -CHECKSUM.size], max(MOST_WEIGHTS, SPREAD * len(data))
    state: dict[str, Tensor] = {}
    for entry in header["tensors"]:
        name = str(entry["name"])
        if "same" in entry:
            state[name] = state[entry["same"]]
            continue
        shape = tuple(_whole(n) for n in entry["shape"])
        left -= math.prod(shape)
        if left < 0:
            raise PackedFault(f"declares more weights than a file of {len(data)} bytes may")
        read = _read_plain if "dtype" in entry else _read_shared
        state[name], rest = read(entry, shape, rest)
    if len(rest):
        raise PackedFault(f"has {len(rest)} bytes behind its tensors")
    vocabulary = str(header["vocabulary"])
    vocabulary.encode()  # a text that cannot be written has a fault
    return state, vocabulary


def _read_plain(entry: dict[str, Any], shape: tuple[int, ...], rest: memoryview) -> tuple[Tensor, memoryview]:
    dtype = DTYPES[entry["dtype"]]
    body, rest = _cut(rest, math.prod(shape) * dtype.itemsize)
    whole = torch.from_numpy(np.frombuffer(body, np.uint8).copy())
    return (whole.view(dtype) if len(body) else torch.empty(0, dtype=dtype)).view(shape), rest


def _read_shared(entry: dict[str, Any], shape: tuple[int, ...], rest: memoryview) -> tuple[Tensor, memoryview]:
    size, kept, clusters = math.prod(shape), _whole(entry["kept"]), _whole(entry["clusters"])
    if not clusters <= kept <= size:
        raise PackedFault(f"has {kept} of {size} weights in {clusters} clusters")
    values, rest = _cut(rest, 4 * clusters)
    kind, alphabet, length = map(_whole, entry["positions"])
    body, rest = _cut(rest, length)
    positions = read_positions(kind, alphabet, body, kept, size)
    kind, _, length = map(_whole, entry["codes"])
    body, rest = _cut(rest, length)
    codes = np.zeros(size, np.int64)
    codes[positions] = read_codes(kind, body, kept, clusters) + 1
    return SharedWeights(shape, codes, np.frombuffer(values, "<f4").astype(np.float32)).tensor(), rest


def _cut(rest: memoryview, length: int) -> tuple[memoryview, memoryview]:
    if length > len(rest):
        raise PackedFault("is cut off")
    return rest[:length], rest[length:]


def _whole(number: Any) -> int:
    if not isinstance(number, int) or not 0 <= number < 1 << 40:
        raise PackedFault(f"has {number!r:.20} where a number should be")
    return number
