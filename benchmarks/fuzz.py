"""Hostile payloads, masks, reports and indices by the million: each is refused, or is what an honest sender could mean.

    python -m benchmarks.fuzz 1000000

The damage knows the format: it cuts, flips, overwrites, splices two of a kind, puts extreme numbers into header fields
and extreme floats among values, and mostly computes the checksum anew, as an attacker would. Anything but a
``PayloadError``, and any warning, ends it with a traceback; so does an update that is not well-formed, one that was
damaged in transit or is bound to another client, or a decoding that takes more than three models of memory.
"""

import argparse
import math
import random
import resource
import struct
import time
import tracemalloc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from benchmarks.honest import ANOTHERS, SOURCES, Source
from fedsparse.compression import PayloadError
from fedsparse.compression.wire import CHECKSUM, bind, checksum

SHARES = {"payloads": 0.6, "masks": 0.15, "reports": 0.15, "indices": 0.1}
"""What is fuzzed, with its share of all."""
LARGE = 200_000
"""Coordinates from which on the memory of a decoding counts: below, it is that of a few Python objects."""
NUMBERS = [0, 1, 2, 5, 2**7, 2**15, 2**31, 2**64 - 1]
EXTREME = [struct.pack("<f", x) for x in (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 0.0)]


def damaged(source: Source, others: Sequence[Source], rng: random.Random) -> bytes:
    """The source's bytes with a fault."""
    data = bytearray(source.data)
    match rng.randrange(7):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            for _ in range(rng.randint(1, 3)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 3:
            for _ in range(rng.randint(1, 3)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 4:
            other = rng.choice(others).data
            data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]
        case 5:
            at = rng.randrange(len(data))
            data[at : at + 4] = rng.choice(EXTREME)
        case _:
            for at, width in rng.choices(source.fields, k=rng.randint(1, 3)):
                old = int.from_bytes(data[at : at + width], "little")
                new = rng.choice(
                    [*NUMBERS, old + 1, old - 1, 2 * old, old // 2, old ^ 128, source.size, rng.getrandbits(64)]
                )
                data[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(data)


def signed(data: bytes, bound: int) -> bytes:
    """``data`` with a checksum that matches, in place of its last bytes."""
    body = data[: -CHECKSUM.size]
    return bind(body + checksum(body), bound)


@dataclass
class Tally:
    """What became of the damaged bytes of one kind."""

    tried: int = 0
    refused: int = 0
    slowest: float = 0.0
    peak: float = 0.0
    """The most memory that a decoding of a large model took, in models."""


def fuzz(kind: str, count: int, seed: int) -> Tally:
    """Reads so many damaged bytes of a kind.

    Raises:
        AssertionError: something was accepted that should not be, or took too much memory.
    """
    rng, tally, sources = random.Random(seed), Tally(), list(SOURCES[kind]())
    alike: dict[int, list[Source]] = {}
    for source in sources:
        source.check(source.read(source.data))
        alike.setdefault(source.size, []).append(source)
    sent = {source.data for source in sources}
    with warnings.catch_warnings(), traced():
        warnings.simplefilter("error")
        for _ in range(count):
            source = rng.choice(sources)
            data, sender = damaged(source, alike[source.size], rng), source.bound
            if sender is not None and len(data) >= CHECKSUM.size:  # else it has no checksum
                sender = rng.choices([source.bound, ANOTHERS, None], (0.8, 0.1, 0.1))[0]
                if sender is not None:
                    data = signed(source.lie(data), sender)
            accepted = attempt(source, data, tally)
            is_honest = sender == source.bound or data in sent  # a splice may give another source's bytes
            assert is_honest or not accepted, f"{kind}: accepted {data[:60].hex()}"
    return tally


@contextmanager
def traced() -> Iterator[None]:
    """Count the memory that Python and NumPy allocate. Once for all, because each start leaks half a kilobyte."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def attempt(source: Source, data: bytes, tally: Tally) -> bool:
    """Whether the receiver accepts these bytes."""
    is_large = source.size >= LARGE and source.bound is not None
    tracemalloc.reset_peak()
    held, began = tracemalloc.get_traced_memory()[0], time.thread_time()
    try:
        decoded = source.read(data)
    except PayloadError as error:
        tally.refused += 1
        message = str(error)
        assert "\n" not in message
        assert len(message) < 300
        decoded = None
    tally.slowest = max(tally.slowest, time.thread_time() - began)
    if is_large:
        models = (tracemalloc.get_traced_memory()[1] - held) / (4 * source.size)
        assert models < 3, (models, data[:60].hex())
        tally.peak = max(tally.peak, models)
    tally.tried += 1
    if decoded is None:
        return False
    source.check(decoded)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for kind in SHARES:  # once, so that what libraries keep for good is there
        fuzz(kind, 100, arguments.seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("| | tried | refused | otherwise well-formed | most memory, in models | slowest |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind, share in SHARES.items():
        t = fuzz(kind, round(share * arguments.count), arguments.seed)
        peak = f"{t.peak:.2f}" if t.peak else ""
        print(
            f"| {kind} | {t.tried:,} | {t.refused:,} | {t.tried - t.refused:,} | {peak} | {1e3 * t.slowest:.0f} ms |",
            flush=True,
        )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"\nThe process grew by {grown / 1024:.0f} MiB, pcodec's own memory included.")


if __name__ == "__main__":
    main()
