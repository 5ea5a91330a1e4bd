"""Label skew by a Dirichlet distribution: the smaller beta, the fewer clients share a class.

For each class k, p_k ~ Dir(beta, ..., beta) over the clients, and client j gets the share p_kj of the class's samples
(Yurochkin et al. 2019, arXiv:1905.12022, section 4; Li et al. 2022, arXiv:2102.02079, section 3). Hsu et al. 2019
(arXiv:1909.06335), the first to use the Dirichlet distribution in this field, draw over the classes for each client
instead, and all clients have the same size: see `dirichlet_per_client`. A draw per class skews the sizes too, and uses
every sample exactly once. The code of Li et al. balances the sizes: see `dirichlet_self_balancing`. The same beta means
other data in each of the three.
"""

import numpy as np

from fedsparse.partitions.dataset import DataError
from fedsparse.partitions.split import Ints, by_class, needs_classes

LARGEST_BETA = 1e9  # shares are even long before; clients * beta overflows near 1e308


@needs_classes
def owners(labels: Ints, clients: int, rng: np.random.Generator, *, beta: float) -> Ints:
    """(N,) the client of each sample.

    Args:
        labels: (N,) the class of each sample.
        beta: concentration, above 0; 0.1 gives strong skew, 100 is close to iid.

    Raises:
        DataError: beta is out of range.
    """
    check_beta(beta)
    per_class = np.unique(labels, return_counts=True)[1]
    shares = proportions(len(per_class), clients, beta, rng)
    # Each class is cut at the rounded running sums of its shares. So a client's count differs by less than one sample
    # from its share, and the counts of a class have the exact sum. Rounding each share separately would give no sample
    # to the many clients with a share below half a sample; running sums give samples to some of these clients.
    cuts = np.rint(np.cumsum(shares, axis=1) * per_class[:, None]).astype(np.int64)
    cuts[:, -1] = per_class
    return from_counts(np.diff(cuts, axis=1, prepend=0), labels, rng)


def check_beta(beta: float) -> None:
    """Refuse a concentration that no Dirichlet distribution has, or that is too large to draw with."""
    if not 0 < beta <= LARGEST_BETA:
        raise DataError(f"dirichlet: beta is {beta}; it must be above 0 and at most {LARGEST_BETA:g}")


def from_counts(counts: Ints, labels: Ints, rng: np.random.Generator) -> Ints:
    """(N,) the client of each sample, where client j holds `counts[k, j]` random samples of the k-th class."""
    classes, clients = counts.shape
    result = np.empty(len(labels), np.int64)
    result[by_class(labels, rng)] = np.repeat(np.tile(np.arange(clients), classes), counts.ravel())
    return result


def proportions(classes: int, clients: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """(classes, clients) float64: each row one draw of Dir(beta, ..., beta), summing to 1."""
    return rng.dirichlet(np.full(clients, beta), size=classes)
