"""The payload of a masked update: whole numbers modulo a power of two, each in as few bits as that power has.

    "fsm" version:u8 bits:u8 fingerprint:u64 round:u32 count:u32 words xxh3:u32    little-endian, as everything here

The sum of a cohort's words never wraps: a word has the bits of one client's values, and log2 of the cohort more.
"""

import struct

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fedsparse.compression import PayloadError
from fedsparse.compression.arrays import blocks
from fedsparse.compression.wire import CHECKSUM, bind, checksum
from fedsparse.vector import Layout

MAGIC, VERSION = b"fsm", 1
HEADER = struct.Struct("<3sBBQII")


def word_bits(bits: int, clients: int) -> int:
    """Bits of a word that holds the sum of the values of so many clients, of ``bits`` bits each with their sign."""
    return bits + (clients - 1).bit_length()


def add_mask(words: np.ndarray, key: bytes, sign: int) -> None:
    """Add or subtract, in place and modulo 2^32, the mask of a key: the keystream of AES-256 in counter mode.

    Args:
        words: uint32.
        key: 32 bytes, used for one mask only, because each mask starts at counter 0.
        sign: 1 or -1.
    """
    stream = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    combine = np.add if sign > 0 else np.subtract
    for block in blocks(words.size):
        part = words[block]
        combine(part, np.frombuffer(stream.update(bytes(part.nbytes)), "<u4"), out=part)


def encode(words: np.ndarray, bits: int, layout: Layout, round: int) -> bytes:
    """A payload of the lowest ``bits`` bits, 1 to 32, of each word: uint32, of values of a vector of ``layout``."""
    header = HEADER.pack(MAGIC, VERSION, bits, layout.fingerprint, round, words.size)
    body = pack(words, bits)
    return header + body + checksum(header, body)


def decode(payload: bytes, bits: int, count: int, layout: Layout, round: int, bound: int) -> np.ndarray:
    """The words of a payload, uint32, shape ``(count,)``.

    Args:
        payload: bytes from a client.
        bits, count, layout, round: what the payload must have been made for.
        bound: the ``wire.binding`` of the client and run that it must come from.

    Raises:
        PayloadError: the payload has a fault, or was made for something else.
    """
    if len(payload) != (wanted := HEADER.size + packed_size(count, bits) + CHECKSUM.size):
        raise PayloadError(f"masked payload of {len(payload)} bytes, not {wanted}")
    view = memoryview(payload)
    if view[: HEADER.size] != HEADER.pack(MAGIC, VERSION, bits, layout.fingerprint, round, count):
        raise PayloadError("masked payload was made for other settings, another layout or another round")
    if bind(payload[-CHECKSUM.size :], bound) != checksum(view[: -CHECKSUM.size]):
        raise PayloadError("masked payload is damaged, or it is another client's or another run's")
    return unpack(view[HEADER.size : -CHECKSUM.size], bits, count)


def packed_size(count: int, bits: int) -> int:
    """Bytes of ``count`` packed words."""
    return bits // 8 * count + bits % 8 * ((count + 7) // 8)


def pack(words: np.ndarray, bits: int) -> bytes:
    """The whole bytes of all words, lowest first, then the bits above them: plane after plane."""
    whole = [(words >> 8 * i).astype(np.uint8).tobytes() for i in range(bits // 8)]
    rest = [np.packbits((words >> i).astype(np.uint8) & 1).tobytes() for i in range(bits // 8 * 8, bits)]
    return b"".join(whole + rest)


def unpack(body: memoryview, bits: int, count: int) -> np.ndarray:
    """The inverse of ``pack``."""
    words = np.zeros(count, np.uint32)
    for i in range(bits // 8):
        words |= np.frombuffer(body[i * count : (i + 1) * count], np.uint8).astype(np.uint32) << 8 * i
    at, length = bits // 8 * count, (count + 7) // 8
    for i in range(bits // 8 * 8, bits):
        plane = np.unpackbits(np.frombuffer(body[at : at + length], np.uint8), count=count)
        words |= plane.astype(np.uint32) << i
        at += length
    return words


def signed(words: np.ndarray, bits: int) -> np.ndarray:
    """The numbers from ``-2^(bits - 1)`` to ``2^(bits - 1) - 1`` that words stand for modulo ``2^bits``: int32."""
    up = np.uint32(32 - bits)
    return (words << up).view(np.int32) >> up.astype(np.int32)
