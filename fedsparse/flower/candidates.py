"""The compressors and presets that meet a limit on given updates, and how much of the updates arrives."""

from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fedsparse.catalogue import COMPRESSORS
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.zero_rows import is_whole
from fedsparse.config.presets import PRESETS
from fedsparse.errors import ConfigError
from fedsparse.flower.app_trial import Updates
from fedsparse.flower.compress_mod import CompressMod
from fedsparse.seeds import derive_seed

NAMES = [name for name in (*COMPRESSORS, *PRESETS) if name not in ("none", "topk")]  # hggtopk selects as topk does
DENSITIES = [digits / 10**zeros for zeros in range(1, 6) for digits in (8, 6, 5, 4, 3, 2.5, 2, 1.5, 1)]


class Candidate(NamedTuple):
    """A codec, measured on updates.

    Attributes:
        line: what makes the mod.
        mod: it.
        bytes: of a payload, on average.
        error: ||sum of all updates - sum of what arrives|| / ||sum of all updates||.
        sends_all: whether every payload has every coordinate.
    """

    line: str
    mod: CompressMod
    bytes: float
    error: float
    sends_all: bool


def candidates(limit: float, updates: Updates) -> Iterator[Candidate]:
    """Each compressor and preset, as :func:`candidate` chooses its density."""
    return (candidate(name, limit, updates) for name in NAMES)


def candidate(name: str, limit: float, updates: Updates) -> Candidate:
    """A compressor or preset at the density with the smallest error whose payload meets the limit.

    This is the largest such density, or a smaller one: where all coordinates get one magnitude, as in stc, more of them
    may have a larger error. Where no density meets the limit, it is the smallest.
    """
    parts: list[dict[str, Any]] = [{"density": density} for density in DENSITIES]
    try:
        CompressMod(name, **parts[0])
    except ConfigError:  # it has no density
        parts = [{}]

    @cache
    def at(index: int) -> Candidate:
        return measured(name, parts[index], updates)

    last = len(parts) - 1
    index = bisect_left(range(last), True, key=lambda index: at(index).bytes <= limit)
    while index < last and at(index + 1).error < at(index).error:
        index += 1
    return at(index)


def measured(name: str, parts: dict[str, Any], updates: Updates) -> Candidate:
    """Code every update, each client's with its residual."""
    assert updates.layout
    mod = CompressMod(name, **parts)
    codec, lengths = UpdateCodec(updates.layout, **mod.config.compression()), []
    total, arrived, sends_all = np.zeros(updates.layout.size), np.zeros(updates.layout.size), True
    for client, rounds in updates.of.items():
        state = ClientState()
        for round, update in enumerate(rounds, 1):
            codec.settle(state, round - 1)
            seed = derive_seed(mod.config.seed, "compress", round=round, partition_id=client)
            payload, _ = codec.encode(update, state, round=round, seed=seed)
            lengths.append(len(payload))
            received = codec.decode(payload)
            total += update
            arrived += received.to_dense()
            sends_all &= is_whole(received)
    error = np.linalg.norm(total - arrived) / (np.linalg.norm(total) or 1.0)
    told = "".join(f", {key}={value:g}" for key, value in parts.items())
    return Candidate(f'CompressMod("{name}"{told})', mod, float(np.mean(lengths)), float(error), sends_all)
