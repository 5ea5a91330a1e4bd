"""Which clients a round asks first."""

import numpy as np

from fedsparse.config import Config
from fedsparse.seeds import derive_seed


def sampled(config: Config, round: int, secret: bool = False) -> list[int]:
    """The partition ids of a round's clients, ascending.

    They are ``clients_per_round`` different ones. Where the server adds noise for privacy, each client is drawn
    independently of the others, with the probability ``clients_per_round / clients`` (Poisson sampling), because the
    theorem of privacy amplification assumes that. A binomial number of clients, drawn without replacement, is the same.

    Args:
        secret: draw from the system's randomness instead of the settings' seed, which every client knows.
    """
    rng = np.random.default_rng(None if secret else derive_seed(config.seed, "sample", round=round))
    size = config.clients_per_round
    if config.noise_by_server:
        size = int(rng.binomial(config.clients, size / config.clients))
    return sorted(rng.choice(config.clients, size, replace=False).tolist())
