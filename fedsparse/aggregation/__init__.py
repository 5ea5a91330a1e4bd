"""Aggregators, which combine the updates of a cohort into one.

``--aggregator`` may name a class of the user's own with the members of :class:`Aggregator`.
"""

from typing import Protocol

from torch import Tensor

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
