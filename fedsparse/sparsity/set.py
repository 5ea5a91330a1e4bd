"""SET: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity".

Algorithm 1: of the positive weights of a layer the share ``ratio`` that is smallest is dropped, and of the negative
weights the share that is largest, each sign by itself. As many grow at random. Clients report nothing.
"""

import torch
from torch import Tensor

from fedsparse.sparsity.method import RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import readjust
from fedsparse.sparsity.topology import Topology


class Set(TopologyMethod):
    """Magnitude drop within each sign, random growth, decided by the server."""

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        scores = random_scores(topology, result.generator)
        return readjust(topology, shares_below(topology, result.weights), scores, self.fraction(result.round))


def shares_below(topology: Topology, weights: Tensor) -> Tensor:
    """Of each existing weight the share of its layer's weights of its sign that are not larger in magnitude.

    Dropping the lowest shares of a layer, then, drops the same share of both signs. A weight of 0 has the share 0.

    Args:
        weights: shape ``(parameters,)``.

    Returns:
        float64, shape ``(parameters,)``.
    """
    shares = torch.zeros(topology.mask.numel(), dtype=torch.float64, device=weights.device)
    for layer in topology.layers:
        for sign in (1, -1):
            signed = topology.mask[layer.slice] & (sign * weights[layer.slice] > 0)
            at = layer.start + signed.nonzero().squeeze(1)
            order = weights[at].abs().argsort(stable=True)
            shares[at[order]] = torch.arange(1, len(at) + 1, dtype=torch.float64, device=at.device) / max(len(at), 1)
    return shares


def random_scores(topology: Topology, generator: torch.Generator) -> Tensor:
    """Uniform scores, float64, shape ``(parameters,)``, drawn on the CPU, so that they are the same on every device."""
    scores = torch.rand(topology.mask.numel(), dtype=torch.float64, generator=generator)
    return scores.to(topology.mask.device)
