"""The positions and the codes of a tensor's shared weights as bytes, by Huffman's code and by our own.

Han et al. 2016 (see the package), sections 2 and 4: the number of zeros before each weight that is not 0, in a fixed
number of bits, with a filler where there are more zeros; and Huffman's code of these numbers and of the codes. Here a
filler stands for zeros alone, where the paper's is a weight that is 0 and takes a code too.

Our own are those of payloads: a bitmap, or gaps by pcodec or in a Rice code; and pcodec for the codes. pcodec codes
numbers by asymmetric numeral systems, which need no whole number of bits for each.
"""

import numpy as np

from fedsparse.compression.indices import IndexCodec, IndexFault, pack, pack_gaps, unpack, unpack_gaps
from fedsparse.packing import huffman

FILLER = 255
"""Stands for so many zeros without a weight behind them."""
HUFFMAN, PCODEC = 0, 1
"""How codes are stored. Positions are stored as HUFFMAN, or as an IndexCodec plus one."""


class Stream:
    """Bytes, and what it takes to read them.

    Args:
        kind: how they are coded.
        alphabet: of Huffman's code, else 0.
    """

    def __init__(self, kind: int, alphabet: int, body: bytes) -> None:
        self.kind, self.alphabet, self.body = kind, alphabet, body

    @property
    def header(self) -> list[int]:
        """Whole numbers for the file's header."""
        return [self.kind, self.alphabet, len(self.body)]


def code_positions(positions: np.ndarray, size: int) -> tuple[Stream, Stream]:
    """Sorted int64 ``positions`` below ``size``, by Huffman's code and by our own."""
    gaps = np.diff(positions, prepend=-1) - 1
    fillers, rest = gaps // FILLER, gaps % FILLER
    symbols = np.full(int(fillers.sum()) + gaps.size, FILLER)
    symbols[(fillers + 1).cumsum() - 1] = rest
    alphabet = int(symbols.max(initial=0)) + 1
    codec, body = pack(positions, size)
    return Stream(HUFFMAN, alphabet, len(symbols).to_bytes(5, "little") + huffman.encode(symbols, alphabet)), Stream(
        codec + 1, 0, body
    )


def read_positions(kind: int, alphabet: int, body: memoryview, count: int, size: int) -> np.ndarray:
    """``count`` positions below ``size``, from either stream.

    Raises:
        IndexFault, HuffmanFault, ValueError: the bytes have a fault.
    """
    if kind != HUFFMAN:
        codec = IndexCodec(kind - 1)
        if codec in (IndexCodec.SEED, IndexCodec.FACTORS) or (codec is IndexCodec.ALL and (len(body) or count != size)):
            raise IndexFault("positions in no coding of theirs")
        return np.arange(size) if codec is IndexCodec.ALL else unpack(codec, body, count, size)
    many = int.from_bytes(body[:5], "little")
    if not count <= many <= count + size // FILLER or alphabet > FILLER + 1:
        raise IndexFault(f"{many} gaps for {count} of {size} weights")
    symbols = huffman.decode(body[5:], many, alphabet)
    ends = np.flatnonzero(symbols != FILLER)
    positions = symbols.cumsum()[ends] + np.arange(ends.size)
    if ends.size != count or (count and positions[-1] >= size) or (many and ends[-1:] != many - 1):
        raise IndexFault("gaps that do not fit the weights")
    return positions


def code_codes(codes: np.ndarray, clusters: int) -> tuple[Stream, Stream]:
    """int64 ``codes`` below ``clusters``, by Huffman's code and by our own."""
    ours = pack_gaps(codes.astype(np.uint32))
    return Stream(HUFFMAN, clusters, huffman.encode(codes, clusters)), Stream(PCODEC, 0, ours)


def read_codes(kind: int, body: memoryview, count: int, clusters: int) -> np.ndarray:
    """``count`` codes below ``clusters``, from either stream.

    Raises:
        IndexFault, HuffmanFault: the bytes have a fault.
    """
    if kind == HUFFMAN:
        return huffman.decode(body, count, clusters)
    codes = unpack_gaps(body, count, clusters).astype(np.int64)
    if codes.size and codes.max() >= clusters:
        raise IndexFault(f"a code of {codes.max()} for {clusters} clusters")
    return codes
