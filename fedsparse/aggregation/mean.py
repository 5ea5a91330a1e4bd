"""The mean of updates, each coordinate over the clients that hold it.

Where all clients hold all weights this is FedAvg's mean (McMahan et al. 2017, algorithm 1); where masks differ it is
FedDST's sparse weighted average (Bibikar et al. 2022, algorithm 1), written for updates, so that any server optimizer
can follow. The mean update is 0 where no client holds a weight.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fedsparse.compression import SparseUpdate


class Votes(NamedTuple):
    """The clients' weights, summed: what a topology that clients vote on is chosen by.

    Attributes:
        total: float64, shape ``(parameters,)``: ``sum n m w``, see ``select_by_votes``.
        held: float64, shape ``(parameters,)``: ``sum n m``.
    """

    total: Tensor
    held: Tensor


class Mean:
    """``sum n m u / sum n m``, one client at a time; 0 where no client holds a weight.

    The sums are float64; float32 while every client holds every weight, which is plain averaging at half the memory.

    Args:
        size: of the flat vector.
        mask: bool, shape ``(parameters,)``: what a client without a mask of its own holds.

    Attributes:
        total: shape ``(size,)``: ``sum n m u``.
        samples: of all clients.
    """

    def __init__(self, size: int, mask: Tensor) -> None:
        self.mask = mask
        self.total = torch.zeros(size, dtype=torch.float32 if mask.numpy().all() else torch.float64)
        self.samples = 0.0
        self._shared = 0.0  # samples of the clients that hold the shared mask: one number instead of a vector
        self._apart: Tensor | None = None

    def add(self, update: SparseUpdate, samples: float, mask: Tensor | None = None) -> None:
        """Add a client's update, weighted by its number of samples (not of batches).

        Args:
            update: it has no coordinates where its mask is False.
            samples: more than 0.
            mask: bool, shape ``(parameters,)``: what this client holds, where it differs from the others.
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
        """The mean update, float32, shape ``(size,)``, in the place of the sums. Every client holds all buffers."""
        parameters = self.mask.numel()
        if self._apart is None:
            self.total.div_(self.samples)
        else:  # where no client holds a weight the sum is 0, and stays 0
            held = self.held
            self.total[:parameters].div_(held.masked_fill_(held == 0, 1.0))
            self.total[parameters:].div_(self.samples)
        return self.total.float()
