"""Which clients a round asks."""

from collections.abc import Iterable, Sequence, Set

import numpy as np

from fedsparse.config import Config
from fedsparse.seeds import derive_seed


def sampled(config: Config, round: int, secret: bool = False, among: Sequence[int] | None = None) -> list[int]:
    """The partition ids of a round's clients, ascending.

    They are ``clients_per_round`` different ones. Where the server adds noise for privacy, each client is drawn
    independently of the others, with the probability ``clients_per_round / clients`` (Poisson sampling), because the
    theorem of privacy amplification assumes that. A binomial number of clients, drawn without replacement, is the same.

    Args:
        secret: draw from the system's randomness instead of the settings' seed, which every client knows.
        among: the clients that take part; None for all.
    """
    rng = np.random.default_rng(None if secret else derive_seed(config.seed, "sample", round=round))
    size, among = config.clients_per_round, among or range(config.clients)
    if config.noise_by_server:
        size = int(rng.binomial(config.clients, size / config.clients))
    return sorted(among[place] for place in rng.choice(len(among), size, replace=False).tolist())


def sampled_again(
    config: Config, round: int, attempt: int, asked: Set[int], missing: Iterable[int],
    among: Sequence[int] | None = None,
) -> list[int]:  # fmt: skip
    """The clients of another cohort of the same round, ascending: first of those that were not asked.

    Args:
        attempt: 2 for the second cohort of the round.
        asked: the clients that were asked in this round.
        missing: those of them whose update was not accepted.
        among: as for ``sampled``.
    """
    rng = np.random.default_rng(derive_seed(config.seed, "sample", round=round, partition_id=attempt))
    size, chosen, among = config.clients_per_round, set[int](), among or range(config.clients)
    while len(chosen) < min(size, len(among) - len(asked)):  # by trial, because there may be a million clients
        chosen |= {among[int(rng.integers(len(among)))]} - asked
    rest = rng.permutation(sorted(missing))[: size - len(chosen)].tolist()
    return sorted(chosen | set(rest))
