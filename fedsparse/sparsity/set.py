"""SET: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity".

Algorithm 1: the weights closest to zero are dropped, and as many grow at random. Clients report nothing.
"""

import torch
from torch import Tensor

from fedsparse.sparsity.method import RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import readjust
from fedsparse.sparsity.topology import Topology


class Set(TopologyMethod):
    """Magnitude drop, random growth, decided by the server."""

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        scores = random_scores(topology, result.generator)
        return readjust(topology, result.weights, scores, self.fraction(result.round))


def random_scores(topology: Topology, generator: torch.Generator) -> Tensor:
    """Uniform scores, float64, shape ``(parameters,)``, drawn on the CPU, so that they are the same on every device."""
    scores = torch.rand(topology.mask.numel(), dtype=torch.float64, generator=generator)
    return scores.to(topology.mask.device)
