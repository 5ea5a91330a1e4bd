"""Natural clients: the data set names the client of each sample; in FEMNIST a client is the writer of a character.

LEAF (Caldas et al. 2018, arXiv:1812.01097) keeps its data sets by user in this way.
"""

import numpy as np

from fedsparse.partitions.dataset import DataError
from fedsparse.partitions.split import Ints, as_given


@as_given
def owners(labels: Ints, clients: int, rng: np.random.Generator, *, natural: Ints | None) -> Ints:
    """(N,) the client of each sample, which is `natural` itself.

    Args:
        natural: `Dataset.owners`, (N,).

    Raises:
        DataError: `natural` is None.
    """
    if natural is None:
        raise DataError(
            "natural: this data set does not say who holds what; text does so as a folder of CLIENT.txt files or by "
            "`client` in .jsonl, a loader of your own by returning `clients`"
        )
    return natural
