"""PruneFL: Jiang et al. 2022, "Model Pruning Enables Efficient Federated Learning on Edge Devices".

In a readjustment round clients report squared gradients of all prunable weights. Weights that are already large stay;
the rest are ranked by squared gradient, over all layers together, and the best take what is left of the budget.

Not as in the paper: it lets the total float, while here it is fixed, and layers gain and lose. It divides by the
training time that a weight costs, too, which here is none: weights that do not exist are multiplied like the others.
"""

from torch import Tensor

from fedsparse.sparsity.method import RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import Report, top_indices
from fedsparse.sparsity.topology import Topology


class PruneFL(TopologyMethod):
    """Ranks all layers together by ``g^2``."""

    @property
    def reports(self) -> bool:
        return True

    def report(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Report | None:
        indices = topology.prunable.nonzero().squeeze(1)
        return Report(indices, gradient[indices].square().float())

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        if result.reports is None:
            return topology
        active = topology.mask & topology.prunable
        keep = int(active.sum())
        exchanged = round(self.fraction(result.round) * keep)
        large = top_indices(result.weights.abs(), active, keep - exchanged)
        mask = ~topology.prunable
        mask[large] = True
        mask[top_indices(result.reports.scores, ~mask, exchanged)] = True
        return topology.changed(mask, counts=True)
