"""Splits samples over clients by a distribution, and splits off a client's held-out samples."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedsparse.partitions.dataset import DataError, reason

Ints = NDArray[np.int64]
OwnersFunction = Callable[..., ArrayLike]
"""A distribution; `partition` says what the function is called with and what it returns."""
F = TypeVar("F", bound=OwnersFunction)


@dataclass(frozen=True, eq=False)
class Partition:
    """The samples of every client, each sample held by at most one client; two arrays for any number of clients.

    Attributes:
        order: int64, the indices of the samples that clients hold, client after client, ascending within a client.
        offsets: (clients + 1,) int64; client i holds order[offsets[i]:offsets[i + 1]], which is `partition[i]`.
        moved: how many samples moved from the largest clients, so that every client holds `min_samples`.
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

    @property
    def owners(self) -> Ints:
        """(N,) int64, the client of each sample up to the last that a client holds; -1 where no client does."""
        result = np.full(self.order.max() + 1, -1)
        result[self.order] = np.repeat(np.arange(len(self)), self.sizes)
        return result


def as_given(owners: F) -> F:
    """Marks a distribution that draws nothing, because the data set or a file gives the owners; see `partition`."""
    owners.as_given = True  # type: ignore[attr-defined]
    return owners


def needs_classes(owners: F) -> F:
    """Marks a distribution that means nothing where samples have no classes; see `partition`."""
    owners.needs_classes = True  # type: ignore[attr-defined]
    return owners


def partition(
    labels: ArrayLike | None,
    owners: OwnersFunction,
    clients: int,
    *,
    seed: int,
    samples: int | None = None,
    name: str = "distribution",
    min_samples: int = 1,
    beta: float = 0.1,
    classes_per_client: int = 2,
    natural: Ints | None = None,
) -> Partition:
    """Gives every sample to exactly one client; the same arguments always give the same partition.

    A distribution is a function `owners(labels, clients, rng, ...)`. It is called with `labels`, (N,) int64, the number
    of clients, a `numpy.random.Generator` as its only source of randomness, and by name with each of the settings
    `beta`, `classes_per_client`, `min_samples` and `natural` that its signature takes. It returns the client of each
    sample: (N,) whole numbers in [0, clients).

    For a function marked by `as_given`, which draws nothing, no sample is moved, and `clients` must be the number of
    clients that the function names, each with at least one sample.

    Args:
        labels: (N,) integers, the class of each sample (a tensor, an array or a list); None for samples without
            classes. Each sample is then a class of its own, in their order, and a distribution marked by
            `needs_classes` is refused.
        seed: 0 or above.
        samples: how many samples there are; needed only without labels.
        name: of the distribution; `Partition.name` adds the settings that the distribution takes.
        min_samples: the fewest samples of a client; a client that drew fewer is given more, see `raise_to_floor`.
        beta: the concentration of a Dirichlet distribution.
        classes_per_client: the number of shards of each client.
        natural: `Dataset.owners`.

    Raises:
        DataError: the distribution returned something else, or there are too few samples.
    """
    if labels is None and getattr(owners, "needs_classes", False):
        raise DataError(f"{name} spreads classes, but the samples of this data set have none; use iid or shards")
    classes = np.arange(samples or 0) if labels is None else np.asarray(labels, dtype=np.int64)
    given = getattr(owners, "as_given", False)
    floor = 0 if given else min_samples
    if clients < 1 or min_samples < 0 or seed < 0:
        raise DataError(
            f"clients is {clients}, min_samples {min_samples} and seed {seed}; they must be at least 1, 0 and 0"
        )
    if clients * floor > len(classes):
        raise DataError(
            f"{clients} clients with at least {floor} samples each need {clients * floor} samples, "
            f"but there are {len(classes)}"
        )
    rng = np.random.default_rng(seed)
    known = {"beta": beta, "classes_per_client": classes_per_client, "min_samples": min_samples, "natural": natural}
    settings = _taken(owners, known)
    result = _checked(owners(classes, clients, rng, **settings), len(classes), name)
    _check_clients(result, clients, given, name)
    result, moved = raise_to_floor(result, clients, floor, rng)
    words = {
        "beta": f"beta {beta:g}",
        "classes_per_client": f"{classes_per_client} classes a client",
        "min_samples": f"at least {min_samples} samples",
    }
    full_name = ", ".join([name, *(words[key] for key in settings if key in words)])
    return from_owners(result, clients, moved=moved, name=full_name)


def _taken(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the signature of `function` takes."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return settings
    return {key: value for key, value in settings.items() if key in parameters}


def _checked(returned: ArrayLike, samples: int, name: str) -> Ints:
    """The result of a distribution as (N,) int64, after a check of its shape and dtype."""
    try:
        owners = np.asarray(returned)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} returned no array: {reason(error)}") from error
    if owners.shape != (samples,) or not np.issubdtype(owners.dtype, np.integer):
        raise DataError(
            f"{name} returned an array of shape {owners.shape} and dtype {owners.dtype}; "
            f"it should be the client of each of the {samples} samples, in whole numbers"
        )
    return owners.astype(np.int64)


def _check_clients(owners: Ints, clients: int, given: bool, name: str) -> None:
    count = int(owners.max(initial=-1)) + 1
    if given and count != clients:
        raise DataError(f"{name} has {count} clients, not {clients}; run with --clients {count}")
    wrong = np.flatnonzero((owners < 0) | (owners >= clients))
    if wrong.size:
        sample = wrong[0]
        raise DataError(f"{name} gave sample {sample} to client {owners[sample]}; clients are 0 to {clients - 1}")
    if given and not (sizes := np.bincount(owners)).all():
        raise DataError(f"{name} has no sample for client {sizes.argmin()}")


def from_owners(owners: Ints, clients: int, *, moved: int = 0, name: str = "") -> Partition:
    """The partition in which sample i belongs to client `owners[i]`."""
    offsets = np.concatenate(([0], np.bincount(owners, minlength=clients).cumsum()))
    return Partition(np.argsort(owners, kind="stable"), offsets, moved, name)


def by_class(labels: Ints, rng: np.random.Generator) -> Ints:
    """(N,) sample indices, class after class, in random order within a class."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def raise_to_floor(owners: Ints, clients: int, min_samples: int, rng: np.random.Generator) -> tuple[Ints, int]:
    """(owners, moved): every client holds at least `min_samples`, and `moved` samples have another owner than before.

    The usual code draws the whole partition again until every client holds enough samples. That silently changes the
    distribution, and never ends when beta is small. Here the draw is kept, and only as many samples as are missing
    move: random samples, one at a time, each from the client that is the largest at that moment. The samples are
    counted, so that the run can report the number.
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
    rank = np.arange(len(owners)) - np.repeat(starts, sizes)  # of each grouped sample among its owner's samples
    given = grouped[rank < np.repeat(gives, sizes)]
    owners = owners.copy()
    owners[rng.permutation(given)] = np.repeat(np.arange(clients), wanted)
    return owners, missing


def _from_the_largest(sizes: Ints, missing: int) -> Ints:
    """(clients,) how many samples each client gives when the largest client gives one, `missing` times.

    All clients above some level shrink to it; this finds the highest level that yields `missing` samples.
    """
    low, high = 0, int(sizes.max())
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if np.maximum(sizes - level, 0).sum() >= missing else (low, level - 1)
    gives = np.maximum(sizes - low, 0)
    surplus = int(gives.sum()) - missing
    gives[np.flatnonzero(gives)[:surplus]] -= 1
    return gives


def holdout_size(samples: int, fraction: float) -> int:
    """How many of a client's samples are held out: see `split_holdout`."""
    return min(round(fraction * samples), max(samples - 1, 0))


def split_holdout(indices: Ints, fraction: float, seed: int | Sequence[int]) -> tuple[Ints, Ints]:
    """(train, held out) of one client's samples, both ascending; the same for the same seed.

    `round(fraction * n)` of n samples are held out, but at least one sample stays for training, so that a client with
    a single sample holds out none.

    Raises:
        ValueError: `fraction` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the held-out fraction is {fraction}; it must be in [0, 1)")
    count = holdout_size(len(indices), fraction)
    shuffled = np.random.default_rng(seed).permutation(indices)
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])
