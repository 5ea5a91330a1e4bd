"""Adds up a cohort's accepted replies, one by one."""

from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedsparse.aggregation import Aggregator, VotingAggregator, result_of
from fedsparse.aggregation.mean import Votes
from fedsparse.compression import SparseUpdate
from fedsparse.engine.step_records import Steps
from fedsparse.sparsity import Topology
from fedsparse.sparsity.readjust import Report, ReportSum

Content = TypeVar("Content")


class Checked(NamedTuple, Generic[Content]):
    """A reply to a train message that was checked: what was uploaded, and what the client measured."""

    content: Content
    samples: int
    measured: dict[str, float]
    steps: Steps | None


class Upload(NamedTuple):
    """One client's reply, checked and decoded.

    Attributes:
        update: the client's update, in the coordinates of the flat vector.
        topology: the client's own, in rounds in which clients choose; None when it is the server's.
        report: the client's gradient report on weights; None when it sent none.
        samples: how many samples the client trained on.
        measured: the client's measurements by telemetry's tags.
        clients: how many clients' mean the update is; more than 1 with secure aggregation.
    """

    update: SparseUpdate
    topology: Topology | None
    report: Report | None
    samples: int
    measured: dict[str, float]
    clients: int = 1


class Replies:
    """A round's uploads, added up one at a time.

    Args:
        aggregator: a new one for this round.
        topology: the server's; a client without a topology of its own trains under it.
    """

    def __init__(self, aggregator: Aggregator, topology: Topology) -> None:
        self.reports: ReportSum | None = None
        self.samples, self.count = 0, 0
        self.aggregator = aggregator
        self._parameters = topology.mask.numel()
        self._prunable = int(topology.prunable.count_nonzero())  # sum() would copy the mask as int64
        self._wishes: Tensor | None = None  # how many clients wish for each weight (see `consensus`)
        self._wishing = 0

    def add(self, upload: Upload) -> None:
        """Add a client's upload, weighted by its number of samples."""
        with np.errstate(over="ignore", invalid="ignore"):  # without max-update-norm; FedAvg checks the result
            self.aggregator.add(upload.update, upload.samples, upload.topology.mask if upload.topology else None)
        self.samples, self.count = self.samples + upload.samples, self.count + upload.clients
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
        asked = self.aggregator.votes(old) if votes and isinstance(self.aggregator, VotingAggregator) else None
        return result_of(self.aggregator, len(old)), asked

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
