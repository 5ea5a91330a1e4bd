"""The mean of adapters, and what it misses of the mean of their products, which goes into the frozen weights.

FedEx-LoRA (Singhal et al. 2025, "FedEx-LoRA: Exact aggregation for federated and efficient fine-tuning of large
language models", section 4): with the means B and A of the clients' factors,

    sum_i p_i B_i A_i = B A + R,    R = sum_i p_i (B_i - B) (A_i - A).

The server adds R to the frozen weights, and so has exactly the mean of the clients' layers. R is a covariance: of k
clients its rank is at most (k - 1) r, and the changes of their factors are all that it takes.
"""

import torch
from torch import Tensor

from fedsparse.aggregation.mean import Mean
from fedsparse.compression import SparseUpdate
from fedsparse.lowrank.lora import LoRA
from fedsparse.vector import FlatModel


class ResidualMean(Mean):
    """An aggregator: see :class:`fedsparse.aggregation.Aggregator`. It keeps the updates of a round.

    Args:
        model: with adapters.
        mask: as for :class:`Mean`.
    """

    def __init__(self, model: FlatModel, mask: Tensor) -> None:
        super().__init__(model.layout.size, mask)
        self.model = model
        self.clients: list[tuple[float, Tensor, Tensor | None]] = []

    def add(self, update: SparseUpdate, samples: float, mask: Tensor | None = None) -> None:
        """Add a client's update, weighted by its number of samples."""
        super().add(update, samples, mask)
        self.clients.append((samples, torch.from_numpy(update.to_dense()), mask))

    def residuals(self) -> dict[str, tuple[Tensor, Tensor]]:
        """R of each adapter by the name of its frozen weights: float64 P (m, q) and Q (n, q) with R = P Q^T.

        R is over the clients that hold the adapter, as the mean is; a client holds all of an adapter or nothing.
        """
        entries, found = {entry.name: entry for entry in self.model.layout.trainable}, {}
        for name, part in self.model.module.named_modules():
            if isinstance(part, LoRA):
                up, down = entries[f"{name}.up.weight"], entries[f"{name}.down.weight"]
                held = [(n, update) for n, update, mask in self.clients if mask is None or mask[up.start]]
                if held:
                    changes = ([update[e.slice].view(e.shape).flatten(1) for _, update in held] for e in (up, down))
                    p, q = _covariance([n for n, _ in held], *map(torch.stack, changes))
                    found[f"{name}.base.weight"] = part.scale * p, q
        return found


def _covariance(samples: list[float], ups: Tensor, downs: Tensor) -> tuple[Tensor, Tensor]:
    """P (m, q) and Q (n, q), whose product P Q^T is R, from changes of factors (k, m, r) and (k, r, n)."""
    roots = torch.tensor(samples, dtype=torch.float64).div(sum(samples)).sqrt()
    # Sums over clients of products do not change when both sides are rotated along the clients. The first direction
    # of this rotation is that of the means, whose product is what R leaves out.
    turned = torch.linalg.qr(roots[:, None], mode="complete").Q[:, 1:] * roots[:, None]
    up, down = (torch.einsum("kq,kij->qij", turned, changes.double()) for changes in (ups, downs))
    return up.transpose(0, 1).flatten(1), down.flatten(0, 1).T
