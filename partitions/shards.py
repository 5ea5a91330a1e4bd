"""The pathological split of McMahan et al. 2017 (arXiv:1602.05629, section 3): most clients hold only a few classes.

"Sort the data by digit label, divide it into 200 shards of size 300, and assign each of 100 clients 2 shards."
"""

import numpy as np

from fedsparse.partitions.dataset import DataError
from fedsparse.partitions.split import Ints, by_class


def owners(labels: Ints, clients: int, rng: np.random.Generator, *, classes_per_client: int) -> Ints:
    """(N,) the client of each sample. Each client has `classes_per_client` random shards; sizes differ by at most one.

    As in the paper, a shard may hold the end of one class and the start of the next, when class sizes are no multiple
    of the shard size; and two shards of one client may hold the same class. A shard holds three classes only if a class
    is smaller than a shard.

    Args:
        labels: (N,) the class of each sample.

    Raises:
        DataError: `classes_per_client` exceeds the number of classes, or there are more shards than samples.
    """
    samples, classes, shards = len(labels), len(np.unique(labels)), clients * classes_per_client
    if not 1 <= classes_per_client <= classes:
        raise DataError(f"shards: classes_per_client is {classes_per_client}; it must be 1 to {classes}, the classes")
    if shards > samples:
        raise DataError(
            f"shards: {clients} clients with {classes_per_client} shards each need at least {shards} samples, "
            f"but there are {samples}"
        )
    sizes = np.diff(np.arange(shards + 1) * samples // shards)
    result = np.empty(samples, np.int64)
    result[by_class(labels, rng)] = np.repeat(rng.permutation(shards) % clients, sizes)
    return result
