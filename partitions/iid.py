"""Independent and identically distributed: every client holds equally many samples, drawn uniformly at random."""

import numpy as np

from fedsparse.partitions.split import Ints


def owners(labels: Ints, clients: int, rng: np.random.Generator) -> Ints:
    """(N,) the client of each sample; sizes differ by at most one (McMahan et al. 2017, arXiv:1602.05629, section 3).

    Args:
        labels: (N,) the class of each sample; this distribution uses only their number.
    """
    result = np.empty(len(labels), np.int64)
    result[rng.permutation(len(labels))] = np.arange(len(labels)) % clients
    return result
