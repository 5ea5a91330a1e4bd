"""Clients with networks of several sizes: each client holds one of them for the whole run.

FedDF: Lin et al. 2020, "Ensemble Distillation for Robust Model Fusion in Federated Learning", section 3, algorithm 3.
"""

import math
from functools import lru_cache

import numpy as np

from fedsparse.catalogue import MODELS
from fedsparse.seeds import derive_seed


def entries_of(text: str) -> list[tuple[str, str]]:
    """The networks of a ``client-models`` setting, each with the text of its share; empty where it has none."""
    entries = []
    for entry in text.split(",") if text else ():
        name, _, share = entry.strip().rpartition(":")
        # What follows the last colon may also be the attribute of the user's own file.
        is_whole = not name or (share.isidentifier() and name not in MODELS)
        entries.append((entry.strip(), "") if is_whole else (name, share))
    return entries


def shares_of(text: str) -> dict[str, float]:
    """The networks of a ``client-models`` setting, each with its share of the clients; 1 where it has none.

    Raises:
        ValueError: one line that says what is allowed.
    """
    entries = entries_of(text)
    try:
        shares = {name: float(share or 1) for name, share in entries}
    except ValueError:
        shares = {}
    if len(shares) < len(entries) or not all(share > 0 and math.isfinite(share) for share in shares.values()):
        raise ValueError("should be networks as NAME or NAME:SHARE, each once, with shares above 0")
    return shares


@lru_cache(maxsize=2**16)
def model_of(client: int, text: str, seed: int) -> str:
    """The network that a client holds; it follows from the seed and the client's partition id.

    Args:
        text: the setting.
    """
    shares = shares_of(text)
    bounds = np.cumsum(list(shares.values()))
    drawn = np.random.default_rng(derive_seed(seed, "client-model", partition_id=client)).uniform(0, bounds[-1])
    return list(shares)[int(np.searchsorted(bounds[:-1], drawn, side="right"))]
