"""A cohort's replies: each one read with care, all of them added up.

Whatever is wrong with one reply costs that client its turn, and never ends the run.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Set
from typing import NamedTuple

import torch
from flwr.app import Message, MetricRecord
from torch import Tensor

from fedsparse.aggregation import Aggregator
from fedsparse.aggregation.mean import Mean, Votes
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
    """One client's reply, read.

    Attributes:
        update: in the coordinates of the flat vector.
        topology: of the client, in rounds in which clients choose; None for the server's.
        report: what the client says about weights that do not exist; None where it says nothing.
        samples: that it trained on.
        measured: by telemetry's tags.
    """

    update: SparseUpdate
    topology: Topology | None
    report: Report | None
    samples: int
    measured: dict[str, float]


class Replies:
    """A round's uploads, added up one at a time.

    Args:
        aggregator: new, for this round.
        topology: of the server, which every client holds that has none of its own.
    """

    def __init__(self, aggregator: Aggregator, topology: Topology) -> None:
        self.reports: ReportSum | None = None
        self.samples = 0
        self._aggregator = aggregator
        self._parameters = topology.mask.numel()
        self._prunable = int(topology.prunable.count_nonzero())  # the sum of bools makes int64 of them
        self._wishes: Tensor | None = None  # how many clients wish for each weight
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
            if upload.report.indices.numel() < self._prunable:  # a report on every weight wishes for none of them
                self._wish(upload.report.indices)

    def _wish(self, weights: Tensor) -> None:
        """Note one client's wishes: positions, or a mask."""
        if self._wishes is None:
            self._wishes = torch.zeros(self._parameters, dtype=torch.int32)
        self._wishes[weights] += 1
        self._wishing += 1

    def result(self, old: Tensor, *, votes: bool) -> tuple[Tensor, Votes | None]:
        """The update that the cohort's became, float32 ``(layout.size,)``, and the clients' votes where they are asked.

        Called once, because the update is made in the place of the sums.

        Args:
            old: the weights that the clients started from.
            votes: whether the next topology depends on the clients' weights.
        """
        asked = self._aggregator.votes(old) if votes and isinstance(self._aggregator, Mean) else None
        update = self._aggregator.result()
        if update.shape != old.shape or update.dtype != old.dtype:
            raise ValueError(f"it gave {update.dtype} of shape {tuple(update.shape)}, not float32 {tuple(old.shape)}")
        return update, asked

    @property
    def consensus(self) -> float | None:
        """Of the weights that a client wishes for, the share that another one wishes for too, over all pairs of them.

        Wishes are a client's mask where clients choose, or the few weights that it reports. None when fewer than two
        clients wish.
        """
        if self._wishes is None or self._wishing < 2 or not self._wishes.any():
            return None
        wishes = self._wishes.double()
        return float((wishes * (wishes - 1)).sum() / wishes.sum() / (self._wishing - 1))


class Measures:
    """What a round's clients measured, added up one client at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._told: Counter[str] = Counter()  # how many clients measured each tag

    def count(self, tag: str, amount: float) -> None:
        """Add to one sum."""
        self._sums[tag] += amount

    def add(self, measured: dict[str, float], samples: int) -> None:
        """Add one client's measurements."""
        self._told.update(measured.keys())
        for tag, value in measured.items():
            self._sums[tag] += value * (samples if tag.startswith("train/") else 1.0)

    def means(self, samples: float) -> dict[str, float]:
        """Means over samples of ``train/``, means over the clients that told it of ``compress/``, sums of the rest.

        A client that sends an earlier payload again tells nothing of ``compress/``, for it has compressed nothing.
        """
        return {
            tag: value
            / (samples if tag.startswith("train/") else self._told[tag] if tag.startswith("compress/") else 1)
            for tag, value in self._sums.items()
        }
