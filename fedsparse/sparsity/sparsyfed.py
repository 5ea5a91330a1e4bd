"""SparsyFed: Guastella et al. 2025, "SparsyFed: Sparse Adaptive Federated Training".

Clients train re-parameterised weights ``w = psi |psi|^(alpha - 1)`` (powerpropagation, Schwarz et al. 2021, section 2):
the gradient of psi scales with |psi|, so that large weights grow, small ones stay small and zeros stay zero. Before
upload each client keeps its largest weights. The server averages, and the weights that any client kept exist in the
next round. A weight that no client kept never returns, so that the clients soon agree.

Not as in the paper: a client keeps the largest weights of each layer, as many as the sparsity distribution gives that
layer. A choice over all layers together would remove all weights of a layer with small initial weights in round 1
(PyTorch draws them within 1 / sqrt(inputs)), and the network would never learn. The paper's pruning of activations,
which saves computation only, is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from fedsparse.sparsity.largest import largest_mask
from fedsparse.sparsity.method import Layers, RoundResult, TopologyMethod
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
    """Clients train under the server's mask, and upload the largest weights of each layer, at the given sparsity.

    Attributes:
        alpha: exponent of the re-parameterisation of the prunable weights; 1 for none.
    """

    alpha: float = 1.25

    clients_choose = True

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        self.counts(layers, self.sparsity)  # raises now, not after round 1, for an impossible sparsity
        return Topology.full(layers, parameters)

    def is_readjustment(self, round: int) -> bool:
        return True

    def before_step(self, weights: Sequence[nn.Parameter]) -> None:
        for w in weights:
            psi = from_weights(w, self.alpha)
            w.grad = gradient_of_psi(w.grad, psi, self.alpha)  # type: ignore[arg-type]
            w.copy_(psi)

    def after_step(self, weights: Sequence[nn.Parameter]) -> None:
        for psi in weights:
            psi.copy_(to_weights(psi, self.alpha))

    def upload_topology(self, topology: Topology, weights: Tensor) -> Topology:
        mask = topology.mask.clone()
        for layer, count in zip(topology.layers, self.counts(topology.layers, self.sparsity), strict=True):
            mask[layer.slice] = largest_mask(weights[layer.slice].abs(), mask[layer.slice], count)
        return topology.changed(mask, counts=True)

    def allows(self, topology: Topology, own: Topology) -> bool:
        return own.counts == self.counts(own.layers, self.sparsity) and not bool((own.mask & ~topology.mask).any())

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        if result.votes is None:
            return topology
        return topology.changed(result.votes.held[: topology.mask.numel()] > 0, counts=True)
