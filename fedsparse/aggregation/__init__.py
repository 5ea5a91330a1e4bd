"""How the updates of a cohort become one.

A rule of the user's own is a class with the members of :class:`Aggregator`, named by ``--aggregator``.
"""

from typing import Protocol

from torch import Tensor

from fedsparse.compression import SparseUpdate


class Aggregator(Protocol):
    """One round's updates. Constructed anew for every round, with

        size: of the flat vector: the weights, then buffers such as BatchNorm's running statistics.
        mask: bool, shape ``(parameters,)``: the weights that exist.

    The mean adds one update at a time and keeps none; a rule such as the median may keep all of them.
    """

    def add(self, update: SparseUpdate, samples: int, mask: Tensor | None = None) -> None:
        """Take one client's update.

        Args:
            update: decoded; ``update.add_to(vector)`` adds it to a vector, and ``update.to_dense()`` makes one of it.
                A coordinate that the client did not send is absent, which is not a vote for zero.
            samples: how many the client trained on.
            mask: bool, shape ``(parameters,)``: the weights that this client holds, where they are not the mask's.
        """
        ...

    def result(self) -> Tensor:
        """The cohort's update, float32, shape ``(size,)``. Called once, after at least one ``add``."""
        ...
