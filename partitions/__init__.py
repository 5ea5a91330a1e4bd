"""Data sets, and the partition of their samples over clients. This package imports no other package of the project.

A data set is a function `load(data_dir)`: see `as_dataset`. A distribution is a function
`owners(labels, clients, rng)`: see `partition`. `partitions.picture` draws a partition; it is not imported here,
because its import of matplotlib would cost every client process most of a second.
"""

from partitions.batches import augment, normalise, to_device
from partitions.dataset import DataError, Dataset, classes_without_samples
from partitions.from_arrays import as_dataset
from partitions.image_folder import load_folder
from partitions.npz import load_npz
from partitions.split import Partition, as_given, holdout_size, partition, split_holdout

__all__ = [
    "DataError",
    "Dataset",
    "Partition",
    "as_dataset",
    "as_given",
    "augment",
    "classes_without_samples",
    "holdout_size",
    "load_folder",
    "load_npz",
    "normalise",
    "partition",
    "split_holdout",
    "to_device",
]
