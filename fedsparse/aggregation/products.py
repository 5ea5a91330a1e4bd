"""The mean of what clients' low-rank layers compute with, in place of the mean of their factors.

The mean of products is not the product of means: sum_i p_i A_i B_i differs from (sum_i p_i A_i)(sum_i p_i B_i) where
clients differ (Singhal et al. 2025, "FedEx-LoRA: Exact aggregation for federated and efficient fine-tuning of large
language models", section 3). Here the server adds up the products and factors their mean anew: its truncated SVD is the
best layer of the same rank (as in FlexLoRA, Bai et al. 2024). All other weights are averaged as ever.
"""

import torch
from torch import Tensor

from fedsparse.aggregation.mean import Mean
from fedsparse.compression import SparseUpdate
from fedsparse.lowrank.lora import LoRA
from fedsparse.lowrank.svd import LowRank
from fedsparse.vector import FlatModel


class ProductMean:
    """An aggregator: see :class:`fedsparse.aggregation.Aggregator`.

    Args:
        model: computes products and factors; its weights are overwritten.
        weights: the global weights, float32, shape ``(layout.size,)``.
        mask: as for :class:`Mean`.
    """

    def __init__(self, model: FlatModel, weights: Tensor, mask: Tensor) -> None:
        self.model, self.weights, self.mean = model, weights, Mean(len(weights), mask)
        starts = {entry.name: entry.start for entry in model.layout.trainable}
        named = model.module.named_modules()
        self.layers = [(part, starts[f"{name}.up.weight"]) for name, part in named if isinstance(part, LowRank | LoRA)]
        self.sums = [layer.matrix.detach().double().zero_() for layer, _ in self.layers]

    def add(self, update: SparseUpdate, samples: int, mask: Tensor | None = None) -> None:
        """Add a client's update, and the products of its factors, weighted by its number of samples."""
        self.mean.add(update, samples, mask)
        local = self.weights.clone()
        update.add_to(local, 1.0)
        self.model.vector.copy_(local)
        for total, (layer, start) in zip(self.sums, self.layers, strict=True):
            if mask is None or mask[start]:  # a client holds all of a layer or nothing
                total.add_(layer.matrix.detach(), alpha=samples)

    def result(self) -> Tensor:
        """The change of the global weights, float32, shape ``(size,)``; infinite where the products overflow."""
        held = self.mean.held
        if not all(total.isfinite().all() for total in self.sums):  # which have no singular values
            return torch.full_like(self.weights, torch.inf)
        self.model.vector.copy_(self.weights + self.mean.result())
        for total, (layer, start) in zip(self.sums, self.layers, strict=True):
            if held[start]:
                layer.set_matrix_((total / held[start]).float())
        return self.model.vector.cpu() - self.weights
