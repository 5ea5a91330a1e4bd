"""Gradual magnitude pruning: Zhu and Gupta 2017, "To prune, or not to prune" (section 3, eq. 1)."""

import torch
from torch import Generator, Tensor

from fedsparse.sparsity.largest import largest_mask
from fedsparse.sparsity.method import Layers, RoundResult, TopologyMethod
from fedsparse.sparsity.topology import Topology


def gradual_sparsity(round: int, end: int, final: float) -> float:
    """``s_f - s_f (1 - t / T)^3``: rises fast at first, while many weights matter little; ``final`` from ``end`` on."""
    return final - final * (1 - min(round / end, 1.0)) ** 3 if end else final


class Magnitude(TopologyMethod):
    """Starts dense. Every ``interval`` rounds, and at ``end``, the smallest weights of each layer go for good."""

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        self.counts(layers, self.sparsity)  # raises now, not at the end, for an impossible sparsity
        return Topology.full(layers, parameters)

    def is_readjustment(self, round: int) -> bool:
        return round == self.end or (self.interval > 0 and round % self.interval == 0 and round < self.end)

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        sparsity = gradual_sparsity(result.round, self.end, self.sparsity)
        mask = topology.mask.clone()
        for layer, count in zip(topology.layers, self.counts(topology.layers, sparsity), strict=True):
            # Every weight is a candidate, because rounding may give the largest layer a few more weights than exist.
            every = torch.ones_like(mask[layer.slice])
            mask[layer.slice] = largest_mask(result.weights[layer.slice].abs(), every, count)
        return topology.changed(mask, counts=True)
