"""Made for sparse updates: filters clients by which coordinates they send, then by the signs of what they send.

Jin, Xu, Li, Liu, Li and Joshi, "Sparsification Under Siege: Dual-Level Defense Against Poisoning in
Communication-Efficient Federated Learning" (SafeSparse), 2025, arXiv 2505.01454: Jaccard similarity of the supports
against poisoned indices, and density-based clustering of the signs against poisoned directions. The two steps are the
paper's; the thresholds are this project's, and follow from the cohort. Not as in the paper: a client is compared with
all others together and not with each one, because two sparse updates share too few coordinates to tell noise from
disagreement.
"""

import numpy as np
from torch import Tensor

from fedsparse.aggregation.kept import Kept, middle

CHANCE = 2.0
"""Signs agree when they do so by more standard deviations than those of coin tosses."""

LONGEST = 1.5
"""An update is cut to so many times the median length, because its signs do not tell its size."""


class SafeSparse(Kept):
    """The mean, weighted by samples, of the clients that both filters leave, cut to 1.5 times their median length.

    A coordinate that a client did not send has no sign, and is compared with no other client's. That it was not sent
    counts in the first filter alone, and it adds nothing to the mean, as in ``Mean``.
    """

    def result(self) -> Tensor:
        """See ``Aggregator``."""
        shared, sizes, agreement = self.compare()
        kept = self.of_like_support(shared, sizes)
        kept &= self.of_like_signs(shared, agreement, kept)
        norms = self.norms()
        limit = LONGEST * middle(norms[kept])
        return self.mean(np.where(kept, np.minimum(1.0, limit / np.maximum(norms, 1e-30)).clip(1e-300), 0.0))

    def compare(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What pairs of clients have in common.

        Returns:
            How many weights both sent, how many each sent, and the sum of the products of their signs: float64, shapes
            ``(clients, clients)``, ``(clients,)`` and ``(clients, clients)``.
        """
        n = len(self.clients)
        shared, agreement = np.zeros((n, n)), np.zeros((n, n))
        for _, values, sent in self.columns(stop=self.parameters):
            held, signs = (sent & (values != 0)).astype(np.float32), np.sign(values)
            shared += held @ held.T
            agreement += signs @ signs.T
        return shared, np.diagonal(shared).copy(), agreement

    def of_like_support(self, shared: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The clients whose median Jaccard similarity to the others is at least half of the cohort's median: bool."""
        jaccard = shared / np.maximum(sizes[:, None] + sizes - shared, 1)
        scores = np.array([np.median(np.delete(row, i)) if len(row) > 1 else 1.0 for i, row in enumerate(jaccard)])
        return np.asarray(scores >= np.median(scores) / 2)

    def of_like_signs(self, shared: np.ndarray, agreement: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The ``kept`` clients whose signs agree with those of the others: bool, shape ``(clients,)``.

        A client's score is its agreement with all others together, in standard deviations of coin tosses. The client
        with the lowest score is dropped while its score is below half of the median one, and at least half of the
        clients stay. No client is dropped while the median score is one that chance gives.
        """
        kept = kept.copy()
        while kept.sum() > len(kept) / 2:
            others = np.outer(kept, kept) & ~np.eye(len(kept), dtype=np.bool_)
            chance = np.sqrt(np.maximum((shared * others).sum(axis=1), 1))
            scores = np.where(kept, (agreement * others).sum(axis=1) / chance, np.inf)
            median = np.median(scores[kept])
            if median < CHANCE or scores.min() >= median / 2:
                break
            kept[scores.argmin()] = False
        return kept
