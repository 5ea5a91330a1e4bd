"""Made for sparse updates: filters clients by which coordinates they send, then by the signs of what they send.

Jin, Xu, Li, Liu, Li and Joshi, "Sparsification Under Siege: Dual-Level Defense Against Poisoning in
Communication-Efficient Federated Learning" (SafeSparse), 2025, arXiv 2505.01454: Jaccard similarity of the supports
against poisoned indices, and density-based clustering of the signs against poisoned directions. The two steps are the
paper's; the thresholds below are this project's, and follow from the cohort, so that there is none to set.
"""

import numpy as np
from torch import Tensor

from fedsparse.aggregation.kept import Kept

CHANCE = 3.0
"""Two clients agree when their signs do by more standard deviations than coin tosses would."""


class SafeSparse(Kept):
    """The mean, weighted by samples, of the clients that both filters leave, none longer than their median.

    A coordinate that a client did not send has no sign, and is compared with no other client's. That it was not sent
    counts in the first filter alone, and it adds nothing to the mean, as in ``Mean``.
    """

    def result(self) -> Tensor:
        """See ``Aggregator``."""
        shared, sizes, agreement = self.compare()
        kept = self.of_like_support(shared, sizes)
        kept &= self.of_like_signs(shared, agreement, kept)
        norms = self.norms()
        limit = np.median(norms[kept])
        return self.mean(np.where(kept, np.minimum(1.0, limit / np.maximum(norms, 1e-30)).clip(1e-30), 0.0))

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
        """The densest cluster of the ``kept`` clients whose signs agree: bool, shape ``(clients,)``.

        As in DBSCAN, a client with enough neighbours is a core, and the cluster is the cores that reach one another and
        their neighbours. Enough is more than half of the clients, so that there is one cluster, of a majority. Where
        there is no core, all stay.
        """
        near = (agreement > CHANCE * np.sqrt(shared)) & np.outer(kept, kept)
        cores = near.sum(axis=1) > kept.sum() / 2
        return near[cores].sum(axis=0) > cores.sum() / 2 if cores.any() else kept
