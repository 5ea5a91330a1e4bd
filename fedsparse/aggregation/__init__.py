"""Aggregators, which combine the updates of a cohort into one.

``--aggregator`` may name a class of the user's own with the members of :class:`Aggregator`.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedsparse.aggregation.mean import Votes
from fedsparse.compression import SparseUpdate


class Aggregator(Protocol):
    """Combines one round's updates. A new object is constructed for every round, with

        size: the length of the flat vector: the weights, then buffers such as BatchNorm's running statistics.
        mask: bool, shape ``(parameters,)``: the weights that exist.

    The mean adds up updates and keeps none of them; a rule such as the median may keep all.
    """

    def add(self, update: SparseUpdate, samples: int, mask: Tensor | None = None) -> None:
        """Take one client's update.

        Args:
            update: decoded; ``update.add_to(vector)`` adds it to a vector, and ``update.to_dense()`` makes one of it.
                A coordinate that the client did not send is absent, which is not a vote for zero.
            samples: how many samples the client trained on.
            mask: bool, shape ``(parameters,)``: the weights that this client holds; None when it holds the round's.
        """
        ...

    def result(self) -> Tensor:
        """The cohort's update, float32, shape ``(size,)``. Called once, after at least one ``add``."""
        ...


@runtime_checkable
class VotingAggregator(Aggregator, Protocol):
    """An aggregator that also knows the clients' weights, by which some topologies are chosen."""

    def votes(self, old: Tensor) -> Votes:
        """The sums of the clients' weights, before ``result``; see ``Mean.votes``."""
        ...


def result_of(aggregator: Aggregator, size: int) -> Tensor:
    """The aggregator's result.

    Raises:
        ValueError: it is something else than float32 of shape ``(size,)``.
    """
    update = aggregator.result()
    if not isinstance(update, Tensor):
        raise ValueError(f"result should return a tensor, not {type(update).__name__}")
    if update.shape != (size,) or update.dtype != torch.float32:
        raise ValueError(f"result returned {update.dtype} of shape {tuple(update.shape)}, not float32 ({size},)")
    return update
