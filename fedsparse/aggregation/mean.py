"""The mean of updates, each coordinate over the clients that hold it.

When all clients hold all weights this is FedAvg's mean (McMahan et al. 2017, algorithm 1). When masks differ it is
FedDST's sparse weighted average (Bibikar et al. 2022, algorithm 1), but of updates instead of weights, so that it works
with any server optimizer. The mean update of a weight that no client holds is 0.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fedsparse.compression import SparseUpdate


class Votes(NamedTuple):
    """The sum of the clients' weights, by which the server chooses a topology that clients vote on.

    Attributes:
        total: float64, shape ``(parameters,)``: ``sum n m w``, see ``select_by_votes``.
        held: float64, shape ``(parameters,)``: ``sum n m``.
    """

    total: Tensor
    held: Tensor


class Mean:
    """``sum n m u / sum n m``, one client at a time; 0 where no client holds a weight.

    The sums are float64, but float32 while every client holds every weight, to save half the memory.

    Args:
        size: length of the flat vector.
        mask: bool, shape ``(parameters,)``: the weights that a client without a mask of its own holds.

    Attributes:
        total: shape ``(size,)``: ``sum n m u``.
        samples: the samples of all clients together.
    """

    def __init__(self, size: int, mask: Tensor) -> None:
        self.mask = mask
        self.total = torch.zeros(size, dtype=torch.float32 if mask.numpy().all() else torch.float64)
        self.samples = 0.0
        self._shared = 0.0  # samples of the clients that hold the shared mask
        self._apart: Tensor | None = None  # for each weight, samples of the clients that hold it by a mask of their own

    def add(self, update: SparseUpdate, samples: float, mask: Tensor | None = None) -> None:
        """Add a client's update, weighted by its number of samples (not of batches).

        Args:
            update: without coordinates where ``mask`` is False.
            samples: more than 0.
            mask: bool, shape ``(parameters,)``: the weights that this client holds; None for the shared mask.
        """
        if not samples > 0:
            raise ValueError(f"a client with {samples} samples has no weight in an average")
        if mask is None:
            self._shared += samples
        else:
            if self._apart is None:
                self.total = self.total.double()
                self._apart = torch.zeros(self.mask.numel(), dtype=torch.float64)
            self._apart.add_(mask, alpha=samples)
        update.add_to(self.total, samples)
        self.samples += samples

    @property
    def held(self) -> Tensor:
        """float64, shape ``(parameters,)``: ``sum n m``."""
        shared = self.mask.double() * self._shared
        return shared if self._apart is None else shared + self._apart

    def votes(self, old: Tensor) -> Votes:
        """The sums of the clients' weights, which are ``old`` (float, shape ``(size,)``) plus their updates."""
        held = self.held
        parameters = held.numel()
        return Votes(self.total[:parameters] + held * old[:parameters], held)

    def result(self) -> Tensor:
        """The mean update, float32, shape ``(size,)``; it overwrites the sums. Every client holds all buffers."""
        parameters = self.mask.numel()
        if self._apart is None:
            self.total.div_(self.samples)
        else:  # where no client holds a weight the sum is 0, and stays 0
            held = self.held
            self.total[:parameters].div_(held.masked_fill_(held == 0, 1.0))
            self.total[parameters:].div_(self.samples)
        return self.total.float()
