"""PruneFL: Jiang et al. 2022, "Model Pruning Enables Efficient Federated Learning on Edge Devices".

In a readjustment round clients report the squared gradients of all prunable weights. The largest weights stay. All
other weights are ranked by squared gradient, over all layers together, and the best of these fill up the budget.

Not as in the paper: the paper lets the number of weights vary, while here the total is fixed and only layers gain and
lose weights. The paper also divides a weight's squared gradient by the training time that the weight costs. Here all
weights cost the same time, because a weight that does not exist is multiplied as a 0.
"""

from torch import Tensor

from fedsparse.sparsity.largest import largest_mask
from fedsparse.sparsity.method import RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import Report
from fedsparse.sparsity.topology import Topology


class PruneFL(TopologyMethod):
    """Ranks all layers together by ``g^2``."""

    def report(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Report | None:
        indices = topology.prunable.nonzero().squeeze(1)
        return Report(indices, gradient[indices].square().float())

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        if result.reports is None:
            return topology
        active = topology.mask & topology.prunable
        keep = int(active.sum())
        exchanged = round(self.fraction(result.round) * keep)
        kept = ~topology.prunable | largest_mask(result.weights.abs(), active, keep - exchanged)
        grown = largest_mask(result.reports.scores, ~kept, exchanged)
        return topology.changed(kept | grown, counts=True)
