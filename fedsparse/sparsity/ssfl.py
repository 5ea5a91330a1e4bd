"""SSFL: Ohib et al. 2024, "Unmasking Efficiency: Learning Salient Sparse Models in Non-IID Federated Learning".

Before round 1 every client scores the initial weights by ``|g w|`` (SNIP, Lee et al. 2019) on its own samples, all of
them or, as in the paper, one mini-batch (``saliency-samples``). The server averages the scores over the clients; the
weights of best score, over all layers together, exist in every round.

Not as in the paper: a client sends only its largest scores, as many as weights may exist, and each score that it leaves
out counts as 0. At sparsity 0.9 all scores would take nine times the bytes, from every client of the federation.
"""

from torch import Generator, Tensor

from fedsparse.sparsity.densities import budget
from fedsparse.sparsity.largest import largest_mask
from fedsparse.sparsity.method import Layers
from fedsparse.sparsity.static import Static
from fedsparse.sparsity.topology import Topology


def saliency(weights: Tensor, gradient: Tensor) -> Tensor:
    """``|g w|``: to first order, how much the loss changes when a weight is removed. Shape ``(parameters,)``."""
    return (gradient * weights).abs()


class SSFL(Static):
    """The most salient weights of the network, over all layers together."""

    needs_saliency = True
    scales_initial = False

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        if saliency is None:
            raise ValueError("ssfl chooses the topology by the clients' saliency, and there is none")
        full = Topology.full(layers, parameters).to(saliency.device)
        return Topology(
            layers,
            ~full.prunable | largest_mask(saliency, full.prunable, budget(layers, self.sparsity, self.sparsity_of)),
        )
