import numpy as np
import pytest

from fedsparse.compression import PayloadError
from fedsparse.privacy.masked_payload import add_mask, decode, encode, signed, word_bits
from fedsparse.vector import Layout

LAYOUT = Layout((), 100, 100)
KEY = bytes(range(32))


@pytest.mark.parametrize("bits", [1, 5, 8, 16, 20, 27, 32])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 1001])
def test_words_come_back(bits: int, count: int) -> None:
    words = np.random.default_rng(0).integers(0, 1 << bits, count, np.uint64).astype(np.uint32)
    payload = encode(words, bits, LAYOUT, round=3)
    assert len(payload) <= -(-bits * count // 8) + 8 + 25
    np.testing.assert_array_equal(decode(payload, bits, count, LAYOUT, 3, bound=0), words)


@pytest.mark.parametrize(("clients", "bits"), [(1, 16), (2, 17), (10, 20), (16, 20), (17, 21), (100, 23)])
def test_a_word_holds_the_sum_of_the_largest_values_of_all_clients(clients: int, bits: int) -> None:
    assert word_bits(16, clients) == bits
    for value in (-(2**15), 2**15 - 1):
        total = np.array([value * clients], np.int32)
        assert signed(total.view(np.uint32) & np.uint32((1 << bits) - 1), bits) == total


def test_a_mask_cancels_and_differs_from_key_to_key() -> None:
    words = np.arange(100_000, dtype=np.uint32)
    masked = words.copy()
    add_mask(masked, KEY, 1)
    other = words.copy()
    add_mask(other, bytes(32), 1)
    assert (masked != other).mean() > 0.999
    add_mask(masked, KEY, -1)
    np.testing.assert_array_equal(masked, words)


@pytest.mark.filterwarnings("error")
def test_damaged_masked_payloads_are_refused() -> None:
    words = np.arange(50, dtype=np.uint32)
    good = encode(words, 20, LAYOUT, round=3)
    rng = np.random.default_rng(0)
    for attempt in range(2000):
        bad = bytearray(good)
        if attempt % 3 == 0:
            bad = bad[: rng.integers(len(bad))]
        elif attempt % 3 == 1:
            bad += rng.bytes(rng.integers(1, 9))
        else:
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        with pytest.raises(PayloadError):
            decode(bytes(bad), 20, 50, LAYOUT, 3, bound=0)


def test_a_masked_payload_counts_for_one_client_round_and_setting() -> None:
    words = np.arange(50, dtype=np.uint32)
    payload = encode(words, 20, LAYOUT, round=3)
    for bits, count, layout, round, bound in (
        (20, 50, LAYOUT, 4, 0),
        (20, 50, Layout((), 99, 99), 3, 0),
        (20, 50, LAYOUT, 3, 7),
        (21, 50, LAYOUT, 3, 0),
        (20, 51, LAYOUT, 3, 0),
    ):
        with pytest.raises(PayloadError):
            decode(payload, bits, count, layout, round, bound)
