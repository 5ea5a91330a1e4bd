"""Natural compression: a sign and an exponent, nine bits a value.

Horváth, Ho, Horváth, Sahu, Canini and Richtárik, "Natural Compression for Distributed Deep Learning", MSML 2022,
definition 1 (unbiased: to one of the two nearest powers of two at random).
"""

import numpy as np

from fedsparse.compression.arrays import blocks


class PowerOfTwo:
    """A float32 without its mantissa; the mantissa decides whether the value is rounded up to the next power of two."""

    code = 8

    def size(self, counts: np.ndarray) -> int:
        n = int(counts.sum())
        return n + (n + 7) // 8

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        bits = values.view(np.uint32)
        # The mantissa / 2^23 is how far the value is from the lower to the upper power of two.
        draws = np.random.Generator(np.random.SFC64([seed, 8])).integers(0, 1 << 23, bits.size) if unbiased else 1 << 22
        exponents = ((bits >> 23) & 255) + ((bits & 0x7FFFFF) > draws)
        return np.minimum(exponents, 254).astype(np.uint8).tobytes() + np.packbits(values < 0).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        n = int(counts.sum())
        negative = np.unpackbits(np.frombuffer(body[n:], np.uint8), count=n)
        bits = np.frombuffer(body[:n], np.uint8).astype(np.uint32)
        for block in blocks(n):
            bits[block] = bits[block] << 23 | negative[block].astype(np.uint32) << 31
        return bits.view(np.float32)
