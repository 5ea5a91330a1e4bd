"""Seeds of the random numbers that somebody's app draws: the global generators of Python, NumPy, torch, TensorFlow."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed every global generator; TensorFlow's only if the app has imported TensorFlow. JAX has none."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.random.set_seed(seed % 2**31)


@contextmanager
def own_draws(seed: int) -> Iterator[None]:
    """A context that draws from its own seed. Afterwards the generators are as they were, but for TensorFlow's."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(gpus):
            seed_everything(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
