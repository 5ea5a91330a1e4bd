"""PruneFL: Jiang et al. 2022, "Model Pruning Enables Efficient Federated Learning on Edge Devices".

In a readjustment round clients report squared gradients of all prunable weights. Weights that are already large stay;
the rest are ranked by squared gradient per unit of training time (adaptive pruning), and the best take what is left of
the budget. The paper lets the total float; here it is fixed, while layers may gain and lose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedsparse.sparsity.method import Method, RoundResult
from fedsparse.sparsity.readjust import Report, top_indices
from fedsparse.sparsity.topology import Topology


@dataclass
class PruneFL(Method):
    """Ranks all layers together by ``g^2 / t``.

    Attributes:
        seconds: training time that one weight of a layer costs, by layer name; 1 where none is given.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def reports(self) -> bool:
        return True

    def report(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Report | None:
        indices = topology.prunable.nonzero().squeeze(1)
        return Report(indices, gradient[indices].square().float())

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        if result.reports is None:
            return topology
        worth = result.reports.scores
        for layer in topology.layers:
            worth[layer.slice] /= self.seconds.get(layer.name, 1.0)
        active = topology.mask & topology.prunable
        keep = int(active.sum())
        exchanged = round(self.fraction(result.round) * keep)
        large = top_indices(result.weights.abs(), active, keep - exchanged)
        mask = ~topology.prunable
        mask[large] = True
        mask[top_indices(worth, ~mask, exchanged)] = True
        return topology.changed(mask, counts=True)
