"""Seeds of all random draws, each made from the experiment's seed, the round, the client and the draw's purpose."""

from typing import Literal, get_args

import numpy as np

Purpose = Literal[
    "model",
    "partition",
    "sample",
    "train",
    "compress",
    "holdout",
    "topology",
    "network",
    "augment",
    "calibration",
    "attack",
    "support",
    "noise",
    "downlink",
    "distill",
    "depth",
    "spread",
    "client-model",
]
PURPOSES = get_args(Purpose)


def derive_seed(seed: int, purpose: Purpose, *, round: int = 0, partition_id: int = 0) -> int:
    """A 63-bit seed for one purpose, independent of the seeds of every other purpose, round and client.

    ``numpy.random.SeedSequence`` hashes the four numbers, so that neighbouring rounds or clients share nothing.
    """
    numbers = [seed, round, partition_id, PURPOSES.index(purpose)]
    # NumPy takes an array of 32-bit words faster than a list; the entropy is the same.
    sequence = np.random.SeedSequence(np.array(numbers, np.uint32) if max(numbers) < 2**32 else numbers)
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
