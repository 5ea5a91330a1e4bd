"""Huffman codes against the entropy, and against a search over all codes."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fedsparse.packing.huffman import LONGEST, HuffmanFault, code_lengths, decode, encode


def drawn(alphabet: int, size: int, decay: float, seed: int = 0) -> np.ndarray:
    weights = decay ** np.arange(alphabet)
    return np.random.default_rng(seed).choice(alphabet, size, p=weights / weights.sum())


def entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("alphabet", [2, 5, 32, 256])
def test_the_mean_length_is_less_than_a_bit_above_the_entropy(alphabet: int, decay: float) -> None:
    counts = np.bincount(drawn(alphabet, 3000, decay), minlength=alphabet)
    mean = (counts * code_lengths(counts)).sum() / counts.sum()
    assert entropy(counts) <= mean + 1e-12
    assert mean < entropy(counts) + 1


def test_no_prefix_code_is_shorter() -> None:
    """Kraft 1949: a prefix code with these lengths exists if and only if the sum of 2^-length is at most 1."""
    for seed in range(5):
        counts = np.random.default_rng(seed).integers(1, 50, 5)
        best = min(
            sum(n * length for n, length in zip(counts.tolist(), lengths, strict=True))
            for lengths in itertools.product(range(1, 5), repeat=5)
            if sum(Fraction(1, 2**length) for length in lengths) <= 1
        )
        assert (counts * code_lengths(counts)).sum() == best


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.3])
@pytest.mark.parametrize(("alphabet", "size"), [(1, 4), (2, 1), (7, 0), (7, 1000), (256, 5000), (256, 700_000)])
def test_symbols_come_back(alphabet: int, size: int, decay: float) -> None:
    symbols = drawn(alphabet, size, decay)
    assert np.array_equal(decode(memoryview(encode(symbols, alphabet)), size, alphabet), symbols)


def test_one_symbol_alone_takes_no_bits() -> None:
    body = encode(np.full(1000, 3), 8)
    assert len(body) == 8
    assert np.array_equal(decode(memoryview(body), 1000, 8), np.full(1000, 3))


def test_counts_like_fibonaccis_numbers_give_no_code_beyond_the_longest() -> None:
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = code_lengths(np.array(counts))
    assert LONGEST // 2 < lengths.max() <= LONGEST
    assert sum(Fraction(1, 2 ** int(length)) for length in lengths) == 1


def test_hostile_bytes_are_refused_or_give_symbols_of_the_alphabet() -> None:
    rng, refused = np.random.default_rng(0), 0
    honest = np.frombuffer(encode(drawn(9, 400, 0.7), 9), np.uint8)
    for _ in range(500):
        damaged = honest[: rng.integers(0, honest.size + 1)].copy()
        for _ in range(rng.integers(1, 4)):
            if damaged.size:
                damaged[rng.integers(0, min(damaged.size, 40))] = rng.integers(0, 256)
        try:
            symbols = decode(memoryview(damaged.tobytes()), 400, 9)
            assert symbols.shape == (400,)
            assert symbols.min() >= 0
            assert symbols.max() < 9
        except HuffmanFault:
            refused += 1
    assert refused > 200
