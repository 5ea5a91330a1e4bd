"""RigL in a federation: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners" (algorithm 1).

Clients report the largest gradients among the weights that do not exist, or are about to be dropped; the server takes
their mean, for what counts is the magnitude of the gradient of the cohort's loss, drops and grows, so that all share
one topology. ``growth`` turns it into SNFS (momentum; Dettmers and Zettlemoyer 2019) or SET (random).
"""

import math

import torch
from torch import Tensor

from fedsparse.sparsity.method import RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import Report, ReportSum, readjust, report_growth
from fedsparse.sparsity.set import random_scores
from fedsparse.sparsity.topology import Topology


class RigL(TopologyMethod):
    """Magnitude drop, growth by gradient magnitude, decided by the server from sparse reports."""

    @property
    def reports(self) -> bool:
        return self.growth != "random"

    def report(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Report | None:
        if self.growth == "random":
            return None
        return report_growth(topology, weights, gradient, self.fraction(round))

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        if self.growth == "random":
            scores = random_scores(topology, result.generator)
        elif result.reports is None:
            return topology
        else:
            scores = self._averaged(result.reports) if self.growth == "momentum" else result.reports.scores
        return readjust(topology, result.weights, scores, self.fraction(result.round))

    def _averaged(self, reports: ReportSum) -> Tensor:
        """The magnitude of the moving average over readjustment rounds; unknown (-inf) is what was never reported."""
        if self.importance is None:
            self.importance = torch.zeros_like(reports.total)
        self.importance = self.momentum * self.importance + (1 - self.momentum) * reports.mean
        return self.importance.abs().masked_fill(self.importance == 0, -math.inf)
