"""The mean of each coordinate without its largest and smallest values.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML
2018, definition 2. There every client sends every coordinate. Here only the clients that sent a coordinate count.
"""

import numpy as np
import torch
from torch import Tensor

from fedsparse.aggregation.kept import Kept, sorted_votes


class TrimmedMean(Kept):
    """The mean of the clients that sent a coordinate, without as many at either end as may be hostile.

    A coordinate that a client did not send is no zero to be trimmed: it is left out first. The mean is multiplied by
    the share of the cohort that sent the coordinate; see ``Median`` for this, for coordinates that too few clients
    sent, and for the weights of clients. Of few values at least one, or the middle two, stay.
    """

    def result(self) -> Tensor:
        """See ``Aggregator``."""
        out = np.zeros(self.size, np.float32)
        for block, values, sent in self.votes():
            votes, many = sorted_votes(values, sent)
            cut = np.minimum(self.hostile, (many - 1).clip(0) // 2)
            row = np.arange(len(votes))[:, None]
            sums = np.where((row >= cut) & (row < many - cut), votes, 0).sum(axis=0, dtype=np.float64)
            counted = many > self.hostile
            share = many / np.maximum(many - 2 * cut, 1) / len(votes)
            out[block][counted] = (sums * share)[counted]
        return torch.from_numpy(out)
