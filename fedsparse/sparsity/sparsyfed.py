"""SparsyFed: Guastella et al. 2025, "SparsyFed: Sparse Adaptive Federated Training".

Clients train re-parameterised weights ``w = psi |psi|^(alpha - 1)`` (powerpropagation, Schwarz et al. 2021, section 2):
the gradient of psi scales with |psi|, so that large weights grow, small ones stay small and zeros stay zero. Before
upload each keeps its largest weights. The server averages, and the weights that any client kept exist in the next
round; zeros never return, so that clients soon agree.

Not as in the paper: the largest weights are taken of each layer, as many as the sparsity distribution gives it. Taken
over all layers together, a layer whose initial weights are small loses every one in round 1, and the network never
learns: PyTorch draws them within 1 / sqrt(inputs). The paper's pruning of activations, which saves computation only, is
left out.
"""

from dataclasses import dataclass

from torch import Generator, Tensor

from fedsparse.sparsity.method import Layers, RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import top_indices
from fedsparse.sparsity.topology import Topology


def to_weights(psi: Tensor, alpha: float) -> Tensor:
    """``psi |psi|^(alpha - 1)``, elementwise; alpha = 1 is the identity."""
    return psi * psi.abs().pow(alpha - 1)


def from_weights(weights: Tensor, alpha: float) -> Tensor:
    """The inverse, ``sign(w) |w|^(1 / alpha)``."""
    return weights.sign() * weights.abs().pow(1 / alpha)


def gradient_of_psi(gradient: Tensor, psi: Tensor, alpha: float) -> Tensor:
    """The loss's gradient by psi, from its gradient by the weights: ``alpha |psi|^(alpha - 1) dL/dw``."""
    return gradient * (alpha * psi.abs().pow(alpha - 1))


@dataclass
class SparsyFed(TopologyMethod):
    """No mask is imposed on training; every upload is a top-k of each layer's weights, at the given sparsity.

    Attributes:
        alpha: applied to the prunable weights.
    """

    alpha: float = 1.25

    clients_choose = True

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        self.counts(layers, self.sparsity)  # an impossible sparsity is told before the first round, not after it
        return Topology.full(layers, parameters)

    def is_readjustment(self, round: int) -> bool:
        return True

    def upload_topology(self, topology: Topology, weights: Tensor) -> Topology:
        mask = ~topology.prunable
        for layer, count in zip(topology.layers, self.counts(topology.layers, self.sparsity), strict=True):
            mask[layer.start + top_indices(weights[layer.slice].abs(), topology.mask[layer.slice], count)] = True
        return topology.changed(mask, counts=True)

    def allows(self, topology: Topology, own: Topology) -> bool:
        return own.counts == self.counts(own.layers, self.sparsity) and not bool((own.mask & ~topology.mask).any())

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        if result.models is None:
            return topology
        return topology.changed(result.models.held[: topology.mask.numel()] > 0, counts=True)
