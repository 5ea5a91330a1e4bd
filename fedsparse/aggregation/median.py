"""The median of each coordinate.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML
2018, definition 1. There every client sends every coordinate. Here only the clients that sent a coordinate vote on it.
"""

import numpy as np
import torch
from torch import Tensor

from fedsparse.aggregation.kept import Kept, sorted_votes


class Median(Kept):
    """The median of the clients that sent a coordinate, times their share of the cohort.

    Not to send a coordinate is no vote for zero: a median over zeros would be zero wherever fewer than half of the
    clients send. The share makes the result as large as a mean, in which each client counts once: what a client holds
    back comes in a later round. A coordinate that no more clients sent than may be hostile is left out, because all of
    them may be hostile; for coordinates of which hostile clients may be a majority, see ``Kept.votes``. Clients count
    equally, whatever their samples.
    """

    def result(self) -> Tensor:
        """See ``Aggregator``."""
        out = np.zeros(self.size, np.float32)
        for block, values, sent in self.votes():
            votes, many = sorted_votes(values, sent)
            middle = np.stack([(many - 1).clip(0) // 2, many // 2])
            pair = np.take_along_axis(votes, np.minimum(middle, len(votes) - 1), axis=0)
            counted = many > self.hostile
            out[block][counted] = pair[:, counted].mean(axis=0) * (many[counted] / len(votes))
        return torch.from_numpy(out)
