"""Checks a cohort's replies one by one, and adds them up.

A wrong reply fails its client for this round, and never ends the run.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Set
from typing import NamedTuple

import torch
from flwr.app import Message, MetricRecord
from torch import Tensor

from fedsparse.aggregation import Aggregator, VotingAggregator, result_of
from fedsparse.aggregation.mean import Votes
from fedsparse.compression import PayloadError, SparseUpdate
from fedsparse.sparsity import Topology
from fedsparse.sparsity.readjust import Report, ReportSum

MOST_SAMPLES = 10**9  # a client that claims more would alone decide the average


def read_metrics(reply: Message, tags: Set[str], least: int = 1) -> tuple[int, dict[str, float]]:
    """The number of samples, at least ``least``, and the measurements under ``tags``, all finite.

    Raises:
        PayloadError: one line that says what is wrong with the reply.
    """
    record = reply.content.get("metrics") if reply.has_content() else None
    if not isinstance(record, MetricRecord):
        raise PayloadError("it has no metrics")
    samples = record.get("num-examples")
    if not isinstance(samples, int) or not least <= samples <= MOST_SAMPLES:
        raise PayloadError(f"num-examples = {samples!r}: should be a whole number of at least {least}")
    measured: dict[str, float] = {}
    for tag in tags & set(record):
        value = record[tag]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise PayloadError(f"{tag} = {value!r}: should be a finite number")
        measured[tag] = float(value)
    return samples, measured


class Upload(NamedTuple):
    """One client's reply, checked and decoded.

    Attributes:
        update: the client's update, in the coordinates of the flat vector.
        topology: the client's own, in rounds in which clients choose; None when it is the server's.
        report: the client's gradient report on weights; None when it sent none.
        samples: how many samples the client trained on.
        measured: the client's measurements by telemetry's tags.
    """

    update: SparseUpdate
    topology: Topology | None
    report: Report | None
    samples: int
    measured: dict[str, float]


class Replies:
    """A round's uploads, added up one at a time.

    Args:
        aggregator: a new one for this round.
        topology: the server's; a client without a topology of its own trains under it.
    """

    def __init__(self, aggregator: Aggregator, topology: Topology) -> None:
        self.reports: ReportSum | None = None
        self.samples = 0
        self._aggregator = aggregator
        self._parameters = topology.mask.numel()
        self._prunable = int(topology.prunable.count_nonzero())  # sum() would copy the mask as int64
        self._wishes: Tensor | None = None  # how many clients wish for each weight (see `consensus`)
        self._wishing = 0

    def add(self, upload: Upload) -> None:
        """Add a client's upload, weighted by its number of samples."""
        self._aggregator.add(upload.update, upload.samples, upload.topology.mask if upload.topology else None)
        self.samples += upload.samples
        if upload.topology:
            self._wish(upload.topology.mask & upload.topology.prunable)
        if upload.report:
            self.reports = self.reports or ReportSum(self._parameters)
            self.reports.add(upload.report, upload.samples)
            if upload.report.indices.numel() < self._prunable:  # a report on all weights prefers none
                self._wish(upload.report.indices)

    def _wish(self, weights: Tensor) -> None:
        """Count one client's wishes, given as positions or as a mask."""
        if self._wishes is None:
            self._wishes = torch.zeros(self._parameters, dtype=torch.int32)
        self._wishes[weights] += 1
        self._wishing += 1

    def result(self, old: Tensor, *, votes: bool) -> tuple[Tensor, Votes | None]:
        """The cohort's update, float32 ``(layout.size,)``, and the clients' votes, or None without ``votes``.

        Call this once, because the update overwrites the sums.

        Args:
            old: the weights that the clients started from.
            votes: whether the next topology depends on the clients' weights.
        """
        asked = self._aggregator.votes(old) if votes and isinstance(self._aggregator, VotingAggregator) else None
        return result_of(self._aggregator, len(old)), asked

    @property
    def consensus(self) -> float | None:
        """How far clients agree: the share of one client's wishes that a second client has too, over all such pairs.

        A client wishes for the weights of its own mask, or for the few weights that it reports. None when fewer than
        two clients wish.
        """
        if self._wishes is None or self._wishing < 2 or not self._wishes.any():
            return None
        wishes = self._wishes.double()
        return float((wishes * (wishes - 1)).sum() / wishes.sum() / (self._wishing - 1))


class Measures:
    """What a round's clients measured, added up one client at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._clients: Counter[str] = Counter()  # how many clients measured each tag

    def count(self, tag: str, amount: float) -> None:
        """Add to one sum."""
        self._sums[tag] += amount

    def add(self, measured: dict[str, float], samples: int) -> None:
        """Add one client's measurements."""
        self._clients.update(measured.keys())
        for tag, value in measured.items():
            self._sums[tag] += value * (samples if tag.startswith("train/") else 1.0)

    def means(self, samples: float) -> dict[str, float]:
        """``train/`` tags: means over samples; ``compress/`` tags: means over their clients; other tags: sums.

        A client that sends an earlier payload again has no ``compress/`` tags, because it compressed nothing.
        """
        return {
            tag: value
            / (samples if tag.startswith("train/") else self._clients[tag] if tag.startswith("compress/") else 1)
            for tag, value in self._sums.items()
        }
