"""Label skew at equal sizes: the classes of each client are drawn from a Dirichlet distribution of its own.

Hsu, Qi and Brown 2019 (arXiv:1909.06335, section 3.1): client j has q_j ~ Dir(alpha p) over the classes and draws every
sample's class from q_j; all clients hold as many samples. FedDyn, DisPFL and SSFL (Ohib et al. 2024) split so. Their
alpha is `beta` here, the concentration of each class; that of Hsu et al. is the sum over all classes, because their
prior p sums to 1: alpha 1 of theirs on ten classes is `beta` 0.1.

Every sample is used exactly once. So classes run out, and a client whose class has run out draws from those that are
left. The last samples drawn are thus less skewed than q_j.
"""

import numpy as np

from fedsparse.partitions.dirichlet import check_beta, from_counts
from fedsparse.partitions.split import Ints, needs_classes


@needs_classes
def owners(labels: Ints, clients: int, rng: np.random.Generator, *, beta: float) -> Ints:
    """(N,) the client of each sample; sizes differ by at most one.

    Args:
        labels: (N,) the class of each sample.
        beta: concentration, above 0; 0.1 is strong skew, 100 is close to iid.

    Raises:
        DataError: beta is out of range.
    """
    check_beta(beta)
    left = np.unique(labels, return_counts=True)[1]
    missing = np.diff(np.arange(clients + 1) * len(labels) // clients)
    shares = rng.dirichlet(np.full(len(left), beta), size=clients)
    counts = np.zeros((clients, len(left)), np.int64)
    while missing.any():  # each turn ends it or empties a class
        counts += (granted := _drawn(shares, missing, left, rng))
        missing, left = missing - granted.sum(axis=1), left - granted.sum(axis=0)
    return from_counts(counts.T, labels, rng)


def _drawn(shares: np.ndarray, missing: Ints, left: Ints, rng: np.random.Generator) -> Ints:
    """(clients, classes) samples: every client draws the classes of all that it misses, from the classes that are left.

    Where the clients want more of a class than is left, chance decides which of them get it.
    """
    shares = shares * (left > 0)
    shares[shares.sum(axis=1) == 0] = left  # nothing that such a client wants is left
    wanted = rng.multinomial(missing, shares / shares.sum(axis=1, keepdims=True))
    for k in np.flatnonzero(wanted.sum(axis=0) > left):
        wanted[:, k] = rng.multivariate_hypergeometric(wanted[:, k], left[k])
    return wanted
