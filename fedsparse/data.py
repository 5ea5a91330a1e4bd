"""A data set by its name, and its samples by their client; both are read once a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsparse.catalogue import DATASETS, PARTITIONERS
from fedsparse.errors import ConfigError
from fedsparse.partitions import DataError, Dataset, Partition, as_dataset, is_text, load_folder, load_npz, load_text
from fedsparse.partitions import partition as split
from fedsparse.partitions.downloads import without_downloads
from fedsparse.partitions.partition_file import owners_from
from fedsparse.plugins import blamed, call, is_own, named


@lru_cache(maxsize=4)
def load_dataset(
    name: str = "fashion-mnist-mini", data_dir: str = "data", tokenizer: str = "auto", seq_length: int = 128,
    setting: str = "dataset",
) -> Dataset:  # fmt: skip
    """A data set, read once a process.

    Args:
        name: in ``catalogue.DATASETS``, the path of an .npz, .txt or .jsonl file or of a folder of images
            or texts, or a reference to the user's own function, which is called with ``data_dir``, a Path, and with
            ``tokenizer`` and ``seq_length`` if its signature has them, and returns what ``partitions.as_dataset``
            takes.
        data_dir: the folder that data sets are downloaded into and read from.
        tokenizer, seq_length: how text becomes tokens, and samples.
        setting: whose value ``name`` is, for messages.

    Raises:
        ConfigError: the data set cannot be read or downloaded, has a fault, or the user's own function fails.
    """
    with blamed(setting, name), data_errors():
        if name.endswith(".npz"):
            return load_npz(Path(name).expanduser())
        place, folder = Path(name).expanduser(), Path(data_dir).expanduser()
        if name not in DATASETS and not is_own(name):
            return load_text(place, tokenizer, seq_length, folder) if is_text(place) else load_folder(place)
        settings = {"tokenizer": tokenizer, "seq_length": seq_length}
        return as_dataset(call(named(DATASETS, name), folder, **settings), name)


def load_present(*loading: Any) -> Dataset:
    """``load_dataset``, but nothing is downloaded, trained or written: for a process beside the one that does so."""
    with without_downloads():
        return load_dataset(*loading)


@lru_cache(maxsize=4)
def partition_of(
    loading: tuple[str, str, str, int], distribution: str, clients: int, seed: int, beta: float,
    classes_per_client: int, min_samples: int, apart: int,
) -> Partition:  # fmt: skip
    """The samples of every client; the same arguments always give the same samples.

    Args:
        loading: the arguments of ``load_dataset``.
        distribution: in ``catalogue.PARTITIONERS``, the path of a .csv file that ``main.py partition`` wrote, or a
            reference to the user's own function (see ``partitions.partition``).
        apart: how many samples no client holds; see ``set_apart``.

    Raises:
        ConfigError: the data set cannot be split in this way.
    """
    data = load_dataset(*loading)
    if apart >= data.train_size:
        raise ConfigError(f"distill-samples = {apart}: leaves clients none of {data.train_size} training samples")
    held = np.delete(np.arange(data.train_size), set_apart(data.train_size, apart, seed))
    with blamed("distribution", distribution), data_errors():
        is_file = distribution.endswith(".csv")
        owners = owners_from(Path(distribution)) if is_file else named(PARTITIONERS, distribution)
        partition = split(
            None if data.labels is None else data.labels[held],
            owners,
            clients,
            samples=len(held),
            seed=seed,
            name=distribution,
            min_samples=min_samples,
            natural=None if data.owners is None else data.owners[held],
            beta=beta,
            classes_per_client=classes_per_client,
        )
    return replace(partition, order=held[partition.order])


def set_apart(samples: int, count: int, seed: int) -> NDArray[np.int64]:
    """The samples, of so many, that no client holds: int64 ``(count,)``, ascending."""
    return np.sort(np.random.default_rng((seed, count)).permutation(samples)[:count])


def check_alike(other: Dataset, data: Dataset, says: str) -> None:
    """Refuse a data set whose samples a model of ``data`` does not understand.

    Raises:
        ConfigError: what its samples are, after ``says``.
    """
    if (other.kind, other.input_shape) != (data.kind, data.input_shape):
        raise ConfigError(f"{says}: has {other.samples_in_words}, and the clients have {data.samples_in_words}")
    if other.vocabulary != data.vocabulary:
        raise ConfigError(f"{says}: the tokenizer makes other tokens of it; use --tokenizer byte, or a tokenizer.json")


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn a DataError into a ConfigError, because ``partitions`` may not import ``fedsparse.errors``."""
    try:
        yield
    except DataError as error:
        raise ConfigError(str(error)) from None
