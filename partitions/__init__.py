"""Data sets, and who holds which samples. A new one is one file and one line in one of the two dicts below.

Pictures are in `partitions.picture`, which imports matplotlib: most of a second that no client process should pay.
"""

import difflib
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from partitions import dirichlet, embedded, iid, npz, shards, vision
from partitions.batches import apply_augmentation, augment, draw_augmentation, normalise, to_device
from partitions.dataset import Dataset
from partitions.errors import DataError
from partitions.split import Ints, Partition, from_owners, raise_to_floor, split_holdout

DEFAULT_DATASET = "fashion-mnist-mini"

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "fashion-mnist-mini": embedded.load,
    "mnist": partial(vision.load, "mnist"),
    "fashion-mnist": partial(vision.load, "fashion-mnist"),
    "cifar10": partial(vision.load, "cifar10"),
    "cifar100": partial(vision.load, "cifar100"),
}

# Each takes (labels, clients, rng) and the settings of all; it returns the owner of every sample.
PARTITIONERS: dict[str, Callable[..., Ints]] = {
    "iid": iid.owners,
    "dirichlet": dirichlet.owners,
    "shards": shards.owners,
}


@lru_cache(maxsize=4)
def load_dataset(name: str = DEFAULT_DATASET, data_dir: str | Path = "data") -> Dataset:
    """A data set by its name in DATASETS, or by the path of an .npz file; read once a process.

    Args:
        data_dir: where torchvision keeps or puts its files; an .npz path is taken as it is.

    Raises:
        DataError: an unknown name, no such file, no network, damaged files.
    """
    if name.endswith(".npz"):
        return npz.load(Path(name).expanduser())
    if name not in DATASETS:
        raise DataError(_unknown("data set", name, DATASETS) + ", or a path ending in .npz")
    return DATASETS[name](Path(data_dir).expanduser())


def partition(
    labels: ArrayLike,
    distribution: str,
    clients: int,
    *,
    seed: int,
    beta: float = 0.1,
    classes_per_client: int = 2,
    min_samples: int = 1,
) -> Partition:
    """Gives every sample to exactly one client; the same arguments always give the same partition.

    Args:
        labels: (N,) integers, the class of each sample (a tensor, an array or a list).
        distribution: a name in PARTITIONERS.
        seed: 0 or above.
        beta: of `dirichlet`.
        classes_per_client: of `shards`.
        min_samples: no client holds fewer; see `raise_to_floor` for how, and `Partition.moved` for its price.

    Raises:
        DataError: an unknown distribution, or a demand that these samples cannot meet.
    """
    samples = np.asarray(labels, dtype=np.int64)
    if distribution not in PARTITIONERS:
        raise DataError(_unknown("distribution", distribution, PARTITIONERS))
    if clients < 1 or min_samples < 0 or seed < 0:
        raise DataError(
            f"clients is {clients}, min_samples {min_samples} and seed {seed}; they must be at least 1, 0 and 0"
        )
    if clients * min_samples > len(samples):
        raise DataError(
            f"{clients} clients with at least {min_samples} samples each need {clients * min_samples} samples, "
            f"but there are {len(samples)}"
        )
    rng = np.random.default_rng(seed)
    owners = PARTITIONERS[distribution](samples, clients, rng, beta=beta, classes_per_client=classes_per_client)
    owners, moved = raise_to_floor(owners, clients, min_samples, rng)
    details = {"dirichlet": f", beta {beta:g}", "shards": f", {classes_per_client} classes a client"}
    return from_owners(owners, clients, moved=moved, name=distribution + details.get(distribution, ""))


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown {kind} {name!r}{hint}; known: {', '.join(known)}"


__all__ = [
    "DATASETS",
    "DEFAULT_DATASET",
    "PARTITIONERS",
    "DataError",
    "Dataset",
    "Partition",
    "apply_augmentation",
    "augment",
    "draw_augmentation",
    "load_dataset",
    "normalise",
    "partition",
    "split_holdout",
    "to_device",
]
