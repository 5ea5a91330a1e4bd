"""SSFL: Ohib et al. 2024, "Unmasking Efficiency: Learning Salient Sparse Models in Non-IID Federated Learning".

Before round 1 every client scores the initial weights by ``|g w|`` on its own samples (SNIP, Lee et al. 2019); the
scores are averaged over the clients, and the best of all layers together are the topology for good.

Not as in the paper: a client sends its largest scores only, as many as weights may exist, and what it leaves out counts
as 0. All scores would take nine times the bytes at sparsity 0.9, and every client of the federation is asked.
"""

from torch import Generator, Tensor

from fedsparse.sparsity.densities import budget
from fedsparse.sparsity.method import Layers
from fedsparse.sparsity.readjust import top_indices
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
            raise ValueError("ssfl chooses the topology by the clients' saliency, and got none")
        full = Topology.full(layers, parameters).to(saliency.device)
        mask = ~full.prunable
        mask[top_indices(saliency, full.prunable, budget(layers, self.sparsity))] = True
        return Topology(layers, mask)
