"""Averaging models that do not have the same weights: each coordinate over those who hold it.

FedDST's sparse weighted average (Bibikar et al. 2022, algorithm 1), with the old value where nobody holds one.
"""

import torch
from torch import Tensor

from fedsparse.sparsity.topology import Topology


class MaskedMean:
    """``where(sum n m > 0, sum n m w / sum n m, old) * M``, in float64, one client at a time.

    Attributes:
        total: float64, shape ``(n,)``: ``sum n m w``, the votes of ``select_by_votes``.
        held: float64, shape ``(n,)``: ``sum n m``.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(size, dtype=torch.float64, device=device)
        self.held = torch.zeros(size, dtype=torch.float64, device=device)

    def add(self, weights: Tensor, mask: Tensor, samples: float) -> None:
        """Add a client's model, weighted by its number of samples (not of batches).

        Args:
            weights: float, shape ``(n,)``; whatever stands where the mask is False is not looked at.
            mask: bool, shape ``(parameters,)`` or ``(n,)``; buffers behind the parameters are held by all.
            samples: more than 0.
        """
        if not samples > 0:
            raise ValueError(f"a client with {samples} samples has no weight in an average")
        parameters = mask.numel()
        self.total[:parameters].add_(weights[:parameters].masked_fill(~mask, 0), alpha=samples)
        self.total[parameters:].add_(weights[parameters:], alpha=samples)
        self.held[:parameters].add_(mask, alpha=samples)
        self.held[parameters:] += samples

    def mean(self, old: Tensor, topology: Topology) -> Tensor:
        """The new global vector.

        Args:
            old: float32, shape ``(n,)``: the global vector of the round's start.
            topology: ``M``, of the round's end.

        Returns:
            float32, shape ``(n,)``; exactly 0 where nothing exists.
        """
        mean = torch.where(self.held > 0, self.total / self.held, old.double())
        return topology.apply_(mean.float())
