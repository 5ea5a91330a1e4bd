"""The update, or the updates, that are closest to their neighbours.

Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, section 4 (Krum) and section 6 (Multi-Krum).
"""

import numpy as np
from torch import Tensor

from fedsparse.aggregation.kept import Kept


class Krum(Kept):
    """The update with the smallest sum of squared distances to its ``n - f - 2`` nearest ones; f may be hostile.

    In the paper the distance is over all coordinates. A coordinate that one of two clients did not send says nothing
    about their distance, so it is the mean over the coordinates that both sent; infinite when they share none. Without
    this, the distance of two sparse updates would tell how many coordinates they share, and not whether they agree.
    """

    chosen = 1

    def result(self) -> Tensor:
        """See ``Aggregator``."""
        factors = np.zeros(len(self.clients))
        factors[np.argsort(self.scores(), kind="stable")[: self.chosen]] = 1.0
        return self.mean(factors)

    def scores(self) -> np.ndarray:
        """Each client's sum of squared distances to its nearest ones: float64, shape ``(clients,)``."""
        distances = np.sort(self.distances(), axis=1)
        return distances[:, : max(1, len(self.clients) - self.hostile - 2)].sum(axis=1)

    def distances(self) -> np.ndarray:
        """Mean squared differences of the weights that both clients sent, infinite on the diagonal."""
        n = len(self.clients)
        sums, shared = np.zeros((n, n)), np.zeros((n, n))
        for _, values, sent in self.columns(stop=self.parameters):
            wide, held = values.astype(np.float64), sent.astype(np.float64)
            squares = (wide * wide) @ held.T
            sums += squares + squares.T - 2 * wide @ wide.T
            shared += held @ held.T
        result = np.where(shared > 0, sums.clip(0) / np.maximum(shared, 1), np.inf)
        np.fill_diagonal(result, np.inf)
        return result


class MultiKrum(Krum):
    """The mean, weighted by samples, of the ``n - f`` updates with the smallest sums; see ``Krum``.

    A coordinate that one of these clients did not send adds nothing to the mean, as in ``Mean``.
    """

    @property
    def chosen(self) -> int:  # type: ignore[override]
        return len(self.clients) - self.hostile
