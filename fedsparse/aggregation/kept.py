"""The base of aggregators that compare clients: it keeps a round's updates, and knows who sent which coordinate.

It takes the memory of all payloads of a cohort, decoded: a model for each client whose update is dense.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression import SparseUpdate
from fedsparse.compression.arrays import blocks


class Client(NamedTuple):
    """One client's update: float32 ``values`` of the sorted ``indices`` (None means all), and its samples."""

    indices: np.ndarray | None
    values: np.ndarray
    samples: float


class Columns(NamedTuple):
    """Some coordinates of all clients.

    Attributes:
        block: which coordinates.
        values: float32, shape ``(clients, width)``; 0 where a client did not send one.
        sent: bool, of the same shape.
    """

    block: slice
    values: np.ndarray
    sent: np.ndarray


class Kept:
    """Keeps a round's updates. A subclass has ``result``.

    Args:
        size, mask: see ``Aggregator``.
        byzantine: the largest share of the cohort that may be hostile, in [0, 0.5).
    """

    def __init__(self, size: int, mask: Tensor, byzantine: float = 0.2) -> None:
        self.size, self.parameters, self.byzantine = size, mask.numel(), byzantine
        self.clients: list[Client] = []

    def add(self, update: SparseUpdate, samples: float, mask: Tensor | None = None) -> None:
        """Keep a client's update. A weight outside its mask was not sent, so the mask says nothing more."""
        values, places = np.concatenate([s.values for s in update.segments]), None
        if not all(s.indices is None for s in update.segments):
            indices = [np.arange(s.size) if s.indices is None else s.indices for s in update.segments]
            places = np.concatenate([at + s.start for at, s in zip(indices, update.segments, strict=True)])
        self.clients.append(Client(places, values, samples))

    @property
    def hostile(self) -> int:
        """How many clients of the cohort may be hostile."""
        return math.floor(self.byzantine * len(self.clients) + 1e-9)

    def columns(self, start: int = 0, stop: int | None = None) -> Iterator[Columns]:
        """The coordinates from ``start`` to ``stop``, some at a time."""
        shape = len(self.clients), (self.size if stop is None else stop) - start
        for part in blocks(shape[1]):
            block = slice(start + part.start, start + part.stop)
            values = np.zeros((shape[0], part.stop - part.start), np.float32)
            sent = np.zeros(values.shape, np.bool_)
            for row, client in enumerate(self.clients):
                if client.indices is None:
                    values[row], sent[row] = client.values[block], True
                else:
                    low, high = np.searchsorted(client.indices, (block.start, block.stop))
                    at = client.indices[low:high] - block.start
                    values[row, at], sent[row, at] = client.values[low:high], True
            yield Columns(block, values, sent)

    def votes(self) -> Iterator[Columns]:
        """All coordinates, for rules that let the senders of each coordinate vote on it.

        Where clients send different coordinates, few vote on some, and hostile ones may be their majority. So there
        each client's weights are first cut to the median length of the cohort, which bounds what these can do.
        """
        norms = self.norms()
        cut = np.minimum(1.0, middle(norms) / np.maximum(norms, 1e-30))
        sparse = any(client.indices is not None for client in self.clients)
        for block, values, sent in self.columns(stop=self.parameters):
            yield Columns(block, values * cut[:, None].astype(np.float32) if sparse else values, sent)
        yield from self.columns(start=self.parameters)

    def norms(self) -> np.ndarray:
        """The L2 norm of each client's weights, without buffers: float64, shape ``(clients,)``."""
        squares = np.zeros(len(self.clients))
        for _, values, _ in self.columns(stop=self.parameters):
            squares += np.square(values, dtype=np.float64).sum(axis=1)
        return np.sqrt(squares)

    def mean(self, factors: Sequence[float] | np.ndarray) -> Tensor:
        """The mean of the clients' weights times their factor, over all samples of clients whose factor is not 0.

        A coordinate that a client did not send adds nothing, as in ``Mean``: the rest of its update comes later.
        Buffers are the median of these clients.
        """
        factors = np.asarray(factors, np.float64)
        samples = np.array([client.samples for client in self.clients]) * (factors > 0)
        out = np.zeros(self.size, np.float32)
        for block, values, _ in self.columns(stop=self.parameters):
            out[block] = (samples * factors / samples.sum()) @ values
        for block, values, _ in self.columns(start=self.parameters):
            out[block] = np.median(values[factors > 0], axis=0)
        return torch.from_numpy(out)


def middle(lengths: np.ndarray) -> float:
    """The lower median: where half of the clients are hostile, it is still as long as an honest update."""
    return float(np.sort(lengths)[(len(lengths) - 1) // 2])


def sorted_votes(values: np.ndarray, sent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each coordinate's sent values, ascending in the first rows of its column; and how many they are."""
    return np.sort(np.where(sent, values, np.inf), axis=0), sent.sum(axis=0)
