"""Huffman coding of small whole numbers.

Huffman, "A method for the construction of minimum-redundancy codes", Proc. IRE 40, 1952. The code is canonical
(Schwartz and Kallick 1964): codes of a length are consecutive numbers, so that the lengths alone describe it.
"""

import heapq
from itertools import count

import numpy as np

LONGEST = 24
"""Bits of the longest code, so that a decoder can look at four bytes at a time."""
ALWAYS = 255
"""In place of the length of the code of the only symbol that there is."""
PIECE = 1 << 20
"""Bits that are decoded at once."""


class HuffmanFault(ValueError):
    """The bytes are no Huffman code; the message says in one line why."""


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Bits of each symbol's code, int64, shape of ``counts``; 0 for a symbol that is never there, or is all there is.

    Where the best code has codes longer than ``LONGEST``, rare symbols are taken for a little more frequent.
    """
    while True:
        lengths = _best_lengths(counts)
        if lengths.max(initial=0) <= LONGEST:
            return lengths
        counts = np.where(counts > 0, counts // 2 + 1, 0)


def _best_lengths(counts: np.ndarray) -> np.ndarray:
    """Huffman's algorithm: join the two least frequent trees until one is left; a join adds a bit to all its leaves."""
    lengths, ties = np.zeros(counts.size, np.int64), count()
    trees = [(int(n), next(ties), [symbol]) for symbol, n in enumerate(counts) if n]
    heapq.heapify(trees)
    while len(trees) > 1:
        (few, _, left), (more, _, right) = heapq.heappop(trees), heapq.heappop(trees)
        lengths[left + right] += 1
        heapq.heappush(trees, (few + more, next(ties), left + right))
    return lengths


def _canonical(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols with a code, by length and then number, and their codes, each at the left of ``LONGEST`` bits."""
    symbols = np.lexsort((np.arange(lengths.size), lengths))
    symbols = symbols[lengths[symbols] > 0]
    widths = 1 << (LONGEST - lengths[symbols])  # a code of few bits takes many of all LONGEST-bit numbers
    return symbols, widths.cumsum() - widths


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """The lengths of all codes, a byte each, then the codes of ``symbols``, whole numbers below ``alphabet``."""
    counts = np.bincount(symbols, minlength=alphabet)
    lengths = code_lengths(counts)
    if np.count_nonzero(counts) == 1:
        return np.where(counts > 0, ALWAYS, 0).astype(np.uint8).tobytes()
    codes = np.zeros(alphabet, np.int64)
    coded, left = _canonical(lengths)
    codes[coded] = left
    of_symbols = lengths[symbols]
    starts = of_symbols.cumsum() - of_symbols
    bits = np.zeros(int(of_symbols.sum()), np.uint8)
    for place in range(int(of_symbols.max(initial=0))):
        here = of_symbols > place
        bits[starts[here] + place] = codes[symbols[here]] >> (LONGEST - 1 - place) & 1
    return lengths.astype(np.uint8).tobytes() + np.packbits(bits).tobytes()


def decode(body: memoryview, size: int, alphabet: int) -> np.ndarray:
    """``size`` symbols, int64; ``encode`` made ``body``.

    Raises:
        HuffmanFault: any other bytes.
    """
    if len(body) < alphabet:
        raise HuffmanFault("the lengths of the codes are cut off")
    lengths = np.frombuffer(body[:alphabet], np.uint8).astype(np.int64)
    coded = np.flatnonzero(lengths)
    if (
        len(body) == alphabet
        and (coded.size == 0) == (size == 0)
        and (lengths[coded] == ALWAYS).sum() == coded.size < 2
    ):
        return np.full(size, coded[0] if size else 0)
    if lengths.max(initial=0) > LONGEST:
        raise HuffmanFault(f"a code of {lengths.max()} bits")
    symbols, left = _canonical(lengths)
    if int((1 << (LONGEST - lengths[symbols])).sum()) != 1 << LONGEST:
        raise HuffmanFault("lengths that no code has")
    data = np.frombuffer(bytes(body[alphabet:]) + bytes(8), np.uint8)
    available = 8 * (len(body) - alphabet)
    if size > available:
        raise HuffmanFault(f"{size} codes in {available} bits")
    found, done, at = np.empty(size, np.int64), 0, 0
    while done < size:
        if at >= available:
            raise HuffmanFault("the codes are cut off")
        places = np.arange(at, min(at + PIECE, available))
        which = np.searchsorted(left, _window(data, places), side="right") - 1  # the code that begins at each place
        steps, place, path = lengths[symbols[which]].tolist(), 0, list[int]()
        while place < len(places) and len(path) < size - done:
            path.append(place)
            place += steps[place]
        found[done : done + len(path)] = symbols[which[path]]
        done, at = done + len(path), at + place
    if at > available or available - at >= 8:
        raise HuffmanFault(f"{available} bits of codes, of which {at} are used")
    return found


def _window(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The ``LONGEST`` bits that begin at each place."""
    byte = places >> 3
    word = data[byte].astype(np.int64) << 24 | data[byte + 1].astype(np.int64) << 16
    word |= data[byte + 2].astype(np.int64) << 8 | data[byte + 3]
    return (word << (places & 7) & 0xFFFFFFFF) >> (32 - LONGEST)
