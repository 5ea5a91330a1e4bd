"""Pruning before upload: each client prunes its trained model, and the server elects as many weights of each layer.

The pruning is in ``fedsparse.sparsity.one_shot``. The election is by votes, like FedDST's (Bibikar et al. 2022).
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fedsparse.sparsity.largest import largest_mask, largest_of_each_row, within
from fedsparse.sparsity.method import Layers, RoundResult, TopologyMethod
from fedsparse.sparsity.topology import Layer, Topology


@dataclass
class UploadPruning(TopologyMethod):
    """Round 1 starts dense. Clients train every weight, prune, and upload the remaining weights with their own mask.

    Attributes:
        sparsity: the share of weights that clients remove from every layer that they prune.
        nm: keep N of every M input channels instead, in the clients' models and in the global one.
    """

    nm: tuple[int, int] | None = None

    clients_choose = True
    clients_vote = True
    trains_all = True

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        return Topology.full(layers, parameters)

    def is_readjustment(self, round: int) -> bool:
        return True

    def allows(self, topology: Topology, own: Topology) -> bool:
        """Whether every layer is whole or a possible result of pruning, which an election among its weights keeps."""
        pairs = zip(own.layers, own.counts, strict=True)
        parts = [(layer, own.mask[layer.slice]) for layer, count in pairs if count < layer.size]
        return all(torch.equal(self._elected(mask.double(), layer), mask) for layer, mask in parts)

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        """The weights with the most votes ``|sum n m w|``, as many in each layer as a client keeps.

        A layer that clients do not prune, such as a recurrent layer, stays whole.
        """
        if result.votes is None:
            return topology
        votes, held = (vector[: topology.mask.numel()] for vector in result.votes)
        mask = torch.ones_like(topology.mask)
        for layer in topology.layers:
            if bool((held[layer.slice] < held.max()).any()):
                scores = votes[layer.slice].abs().masked_fill(held[layer.slice] == 0, -1.0)
                mask[layer.slice] = self._elected(scores, layer)
        return topology.changed(mask, counts=True)

    def _elected(self, scores: Tensor, layer: Layer) -> Tensor:
        """The mask of one layer, flat: the largest scores, or the N largest of every M input channels.

        Args:
            scores: shape ``(layer.size,)``; -1 for weights that no client holds.
        """
        if self.nm is None:
            return largest_mask(scores, scores >= 0, round((1 - self.sparsity) * layer.size))
        n, m = within(self.nm, layer.shape[1])
        rows = scores.view(*layer.shape[:2], -1).transpose(1, 2)  # outputs, kernel positions, input channels
        groups = F.pad(rows, (0, -layer.shape[1] % m), value=-2.0).unflatten(2, (-1, m))  # padding is never kept
        kept = largest_of_each_row(groups, n).flatten(2)
        return kept[..., : layer.shape[1]].transpose(1, 2).reshape(-1)
