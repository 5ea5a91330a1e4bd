"""Gradual magnitude pruning: Zhu and Gupta 2017, "To prune, or not to prune" (section 3, eq. 1)."""

import torch
from torch import Generator, Tensor

from fedsparse.sparsity.method import Layers, RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import top_indices
from fedsparse.sparsity.topology import Topology


def gradual_sparsity(round: int, end: int, final: float, initial: float = 0.0) -> float:
    """``s_f + (s_i - s_f) (1 - t / T)^3``: quick at first, while there is much to spare; ``final`` from ``end`` on."""
    return final + (initial - final) * (1 - min(round / end, 1.0)) ** 3 if end else final


class Magnitude(TopologyMethod):
    """Starts dense; every ``interval`` rounds, and at ``end``, the smallest weights of each layer go for good."""

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        self.counts(layers, self.sparsity)  # an impossible sparsity is told before the first round, not at the end
        return Topology.full(layers, parameters)

    def is_readjustment(self, round: int) -> bool:
        return round == self.end or (self.interval > 0 and round % self.interval == 0 and round < self.end)

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        sparsity = gradual_sparsity(result.round, self.end, self.sparsity)
        mask = topology.mask.clone()
        for layer, count in zip(topology.layers, self.counts(topology.layers, sparsity), strict=True):
            # Among all, not among the active: rounding may ask the largest layer for a few more than it has.
            chosen = top_indices(result.weights[layer.slice].abs(), torch.ones_like(mask[layer.slice]), count)
            mask[layer.slice] = False
            mask[layer.start + chosen] = True
        return topology.changed(mask, counts=True)
