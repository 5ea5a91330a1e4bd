"""Data sets, and the partition of their samples over clients. This package imports no other package of the project.

A data set is a function `load(data_dir)`: see `as_dataset`. A distribution is a function
`owners(labels, clients, rng)`: see `partition`. `partitions.picture` draws a partition; it is not imported here,
because its import of matplotlib would cost every client process most of a second.
"""

from fedsparse.partitions.batches import augment, normalise
from fedsparse.partitions.corpus import Corpus, Document, read_corpus
from fedsparse.partitions.dataset import DataError, Dataset
from fedsparse.partitions.from_arrays import as_dataset
from fedsparse.partitions.image_folder import load_folder
from fedsparse.partitions.images import Images
from fedsparse.partitions.npz import load_npz
from fedsparse.partitions.split import Partition, as_given, holdout_size, partition, split_holdout
from fedsparse.partitions.text import Text
from fedsparse.partitions.text_files import is_text, load_text

__all__ = [
    "Corpus",
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
    "is_text",
    "load_folder",
    "load_npz",
    "load_text",
    "normalise",
    "partition",
    "read_corpus",
    "split_holdout",
]
