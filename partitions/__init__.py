"""Data sets, and the partition of their samples over clients. This package imports no other package of the project.

A data set is a function `load(data_dir)`: see `as_dataset`. A distribution is a function
`owners(labels, clients, rng)`: see `partition`. `partitions.picture` draws a partition; it is not imported here,
because its import of matplotlib would cost every client process most of a second.
"""

from partitions.batches import augment, normalise
from partitions.dataset import DataError, Dataset
from partitions.from_arrays import as_dataset
from partitions.image_folder import load_folder
from partitions.images import Images
from partitions.npz import load_npz
from partitions.split import Partition, as_given, holdout_size, partition, split_holdout
from partitions.text import Document, Text, text_from

__all__ = [
    "DataError",
    "Dataset",
    "Document",
    "Images",
    "Partition",
    "Text",
    "as_dataset",
    "as_given",
    "augment",
    "holdout_size",
    "load_folder",
    "load_npz",
    "normalise",
    "partition",
    "split_holdout",
    "text_from",
]
