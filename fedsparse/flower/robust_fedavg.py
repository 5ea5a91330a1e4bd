"""FedAvg with one of fedsparse's aggregators in the place of its mean: against hostile clients, with sparse replies.

Flower's own FedMedian, Krum and others take a coordinate that a client did not send for a vote of 0. In these
aggregators only the clients that sent a coordinate vote on it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedsparse.aggregation import result_of
from fedsparse.catalogue import AGGREGATORS
from fedsparse.compression import SparseUpdate
from fedsparse.compression.sparse_update import Segment
from fedsparse.errors import ConfigError
from fedsparse.flower.alike import alike, weight_of
from fedsparse.flower.decoded import DecodedArray
from fedsparse.flower.plain_arrays import read, record_of, written
from fedsparse.flower.shared_arrays import Part, SharedArrays
from fedsparse.plugins import call, named

FARTHEST = float(np.finfo(np.float32).max)
"""The largest change of a number; a client's larger one, of a float64, counts as this."""


class RobustFedAvg(FedAvg):
    """Moves the arrays by what an aggregator makes of the clients' updates.

    A client may claim any number of examples, so that each weighs at most as much as the median of the round's clients.

    Arrays that are not of floating-point numbers become the median of the clients' ones. Every update of a round is
    kept until its end, in the memory of what was sent.

    Args:
        aggregator: a name in ``catalogue.AGGREGATORS``, or the user's own class as ``module:Class``.
        byzantine: the largest share of a round's clients that may be hostile, in [0, 0.5).
        options: those of ``FedAvg``.

    Raises:
        ConfigError: a wrong argument; in a round, clients answer with other arrays than they were sent.
        PluginError: there is no such aggregator.
    """

    def __init__(self, aggregator: str = "median", *, byzantine: float = 0.4, **options: Any) -> None:
        if not 0 <= byzantine < 0.5:
            raise ConfigError(f"byzantine = {byzantine}: should be from 0 to below 0.5")
        if ":" not in aggregator and aggregator not in AGGREGATORS:
            raise ConfigError(f"aggregator = {aggregator}: should be one of {', '.join(AGGREGATORS)}")
        super().__init__(**options)
        self.byzantine, self._make, self._sent = byzantine, named(AGGREGATORS, aggregator), ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As FedAvg's; the arrays are kept until the replies come."""
        self._sent = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The arrays that were sent, with the aggregator's update; metrics are averaged as FedAvg's are."""
        answers = alike(list(replies), self._sent, self)
        valid, _ = self._check_and_log_replies(answers, is_train=True)
        contents = [reply.content for reply in valid if weight_of(reply.content, self.weighted_by_key) > 0]
        if not contents:
            return None, None
        received: list[ArrayRecord] = [next(iter(content.array_records.values())) for content in contents]
        shared = SharedArrays({"": self._sent})
        part = shared.part(shared.values)
        mask = torch.ones(part.layout.parameters, dtype=torch.bool)
        made = call(self._make, part.layout.size, mask, byzantine=self.byzantine)
        weights = [weight_of(content, self.weighted_by_key) for content in contents]
        most = float(np.median(weights))
        for record, weight in zip(received, weights, strict=True):
            made.add(update_of(record, shared, part, server_round), min(weight, most))
        change = result_of(made, part.layout.size).numpy()
        moved = {
            key: written(shared.values["", key] + change[entry.slice].reshape(entry.shape), self._sent[key].dtype)
            for (_, key), entry in zip(part.places, part.layout.entries, strict=True)
        }
        arrays = {key: moved[key] if key in moved else median([r[key] for r in received]) for key in self._sent}
        return record_of(arrays), self.train_metrics_aggr_fn(contents, self.weighted_by_key)


def update_of(record: Mapping[str, Array], sent: SharedArrays, part: Part, round: int) -> SparseUpdate:
    """A client's update: of compressed arrays what was sent, of other ones the difference.

    Raises:
        ConfigError: the client's app answers with other arrays than it was sent.
    """
    segments: list[Segment] = []
    known: list[Segment] = []
    for place, entry in zip(part.places, part.layout.entries, strict=True):
        array = record.get(place[1])
        if isinstance(array, DecodedArray):
            known = known or array.update.segments()
            segments.append(replace(known[array.index], start=entry.start))
            continue
        new = None if array is None else read(array)
        if new is None or new.shape != entry.shape:
            raise ConfigError(f"RobustFedAvg: the replies have no array {place[1]!r} of the shape that was sent")
        change = np.subtract(new, sent.values[place], dtype=np.float64)
        change = change.clip(-FARTHEST, FARTHEST).astype(np.float32)
        segments.append(Segment(entry.start, entry.size, None, change.reshape(-1)))
    return SparseUpdate(part.layout, round, tuple(segments))


def median(arrays: list[Array]) -> Array:
    """The median of each number, in the dtype of the first array."""
    return written(np.asarray(np.median([read(array) for array in arrays], axis=0)), arrays[0].dtype)
