"""Who holds which samples: the result of every partitioner, the floor under it, and a client's own held-out data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Every sample in exactly one client's hands, as two arrays, however many clients there are.

    Attributes:
        order: (N,) int64, the sample indices, client after client, ascending within a client.
        offsets: (clients + 1,) int64; client i holds order[offsets[i]:offsets[i + 1]], which is `partition[i]`.
        moved: how many samples the floor of `min_samples` took from the largest clients; 0 if it changed nothing.
        name: the distribution in words, such as "dirichlet, beta 0.1".
    """

    order: Ints
    offsets: Ints
    moved: int = 0
    name: str = ""

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    def __getitem__(self, client: int) -> Ints:
        """The sample indices of one client, ascending: a view, not a copy."""
        if not 0 <= client < len(self):
            raise IndexError(f"client {client} of {len(self)}")
        return self.order[self.offsets[client] : self.offsets[client + 1]]

    @property
    def sizes(self) -> Ints:
        """(clients,) int64, how many samples each client holds."""
        return np.diff(self.offsets)


def from_owners(owners: Ints, clients: int, *, moved: int = 0, name: str = "") -> Partition:
    """The partition in which sample i belongs to client `owners[i]`."""
    offsets = np.concatenate(([0], np.bincount(owners, minlength=clients).cumsum()))
    return Partition(np.argsort(owners, kind="stable"), offsets, moved, name)


def by_class(labels: Ints, rng: np.random.Generator) -> Ints:
    """(N,) sample indices, class after class, in random order within a class."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def raise_to_floor(owners: Ints, clients: int, min_samples: int, rng: np.random.Generator) -> tuple[Ints, int]:
    """Owners such that every client holds at least `min_samples`, and the number of samples that changed hands.

    The usual code draws the whole partition again until the floor happens to hold: that silently replaces the
    distribution by another, and never ends when beta is small. Here the draw stands, as few samples as possible move
    (what is missing below the floor, no more), random ones, from whoever is the largest at that moment, where they
    are missed least; and they are counted, so that the user can be told.
    """
    sizes = np.bincount(owners, minlength=clients)
    wanted = np.maximum(min_samples - sizes, 0)
    missing = int(wanted.sum())
    if not missing:
        return owners, 0
    gives = _from_the_largest(sizes, missing)
    shuffled = rng.permutation(len(owners))
    grouped = shuffled[np.argsort(owners[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(owners)) - np.repeat(starts, sizes)  # of each sample among its owner's, in random order
    given = grouped[rank < np.repeat(gives, sizes)]
    owners = owners.copy()
    owners[rng.permutation(given)] = np.repeat(np.arange(clients), wanted)
    return owners, missing


def _from_the_largest(sizes: Ints, missing: int) -> Ints:
    """(clients,) how many each gives when, `missing` times, the largest gives one: all above some level come down."""
    low, high = 0, int(sizes.max())  # the highest level that yields enough
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if np.maximum(sizes - level, 0).sum() >= missing else (low, level - 1)
    gives = np.maximum(sizes - low, 0)
    surplus = int(gives.sum()) - missing
    gives[np.flatnonzero(gives)[:surplus]] -= 1
    return gives


def split_holdout(indices: Ints, fraction: float, seed: int | Sequence[int]) -> tuple[Ints, Ints]:
    """(train, held out) of one client's samples, both ascending; the same for the same seed.

    `round(fraction * n)` samples are held out, but at least one always stays for training, so that a client with one
    sample holds out none.

    Raises:
        ValueError: `fraction` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the held-out fraction is {fraction}; it must be in [0, 1)")
    count = min(round(fraction * len(indices)), max(len(indices) - 1, 0))
    shuffled = np.random.default_rng(seed).permutation(indices)
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])
