"""RigL in a federation: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners" (algorithm 1).

Clients report the largest gradients among the weights that do not exist or are about to be dropped. The server averages
them to the gradient of the cohort's loss, and drops and grows by it, so that every client gets the same topology.
Growth by momentum is that of SNFS (Dettmers and Zettlemoyer 2019), whose layers also gain and lose weights; growth at
random is that of SET (Mocanu et al. 2018), which drops within each sign, see ``set.py``.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedsparse.sparsity.method import RoundResult, State, TopologyMethod
from fedsparse.sparsity.readjust import Report, ReportSum, readjust, report_growth
from fedsparse.sparsity.set import random_scores
from fedsparse.sparsity.topology import Topology


@dataclass
class RigL(TopologyMethod):
    """Magnitude drop, growth by gradient magnitude, decided by the server from sparse reports.

    Attributes:
        importance: for growth by momentum, the moving average of the mean reports up to the last readjustment: float64,
            shape ``(parameters,)``; None before the first.
    """

    importance: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def reports(self) -> bool:
        return self.growth != "random"

    def report(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Report | None:
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
        """The magnitude of the moving average over readjustment rounds; -inf for weights that were never reported."""
        previous = torch.zeros_like(reports.total) if self.importance is None else self.importance
        self.importance = self.momentum * previous + (1 - self.momentum) * reports.mean
        return self.importance.abs().masked_fill(self.importance == 0, -math.inf)

    def state_dict(self) -> State:
        return {} if self.importance is None else {"importance": self.importance}

    def load_state_dict(self, state: State) -> None:
        self.importance = state.get("importance")
