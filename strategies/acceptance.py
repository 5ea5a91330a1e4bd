"""What the server accepts of a client's reply, which is hostile until it is checked.

A reply is checked in this order: what is in it and how large it is, before anything is decoded; the metrics and the
claimed samples; the payload (see ``fedsparse.compression.wire``); the size of the decoded values. A refused reply fails
its client for this round, and never ends the run.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fedsparse.compression import PayloadError, SparseUpdate
from fedsparse.compression.wire import binding
from fedsparse.config.agreement import run_name
from fedsparse.engine.records import array_bytes
from fedsparse.engine.step_records import RECORD
from fedsparse.errors import one_line
from fedsparse.experiment import Experiment
from fedsparse.sparsity import Topology
from fedsparse.sparsity.readjust import Report
from fedsparse.strategies.server_topology import ServerTopology
from fedsparse.telemetry.tags import Range, measured_by_clients
from fedsparse.training.batchnorm import running_variances
from fedsparse.vector import Layout

ARRAYS, RECORDS = {"update", "mask", "report", "masked"}, {"arrays", "metrics", RECORD}
"""The names that a reply may have."""
MOST_ARRAYS = 3
"""A reply has no more arrays as large as the model, because ``masked`` comes in place of ``update``."""
MOST_METRICS = 200
TIMES = 10
"""An update may be so many times longer than the median of all updates, where ``max-update-norm`` is auto."""
REMEMBERED_ROUNDS = 5
"""The median is over the updates that were accepted in so many rounds."""


class Refused(PayloadError):
    """A reply is not accepted.

    Attributes:
        kind: the reason's name in telemetry, one of ``tags.REFUSALS``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def check_content(content: RecordDict, layout: Layout) -> None:
    """Check what is in a reply and how large it is, without decoding anything.

    Raises:
        Refused: one line that says what is wrong.
    """
    for name, record in content.items():
        if name not in RECORDS:
            raise Refused("content", f"it has a record {one_line(name)!r} that no message asks for")
        if isinstance(record, ArrayRecord) and (unknown := sorted(set(record) - ARRAYS)):
            raise Refused("content", f"it has an array {one_line(unknown[0])!r} that no message asks for")
        if len(record) > MOST_METRICS:
            raise Refused("content", f"its record {name} has {len(record)} entries")
    size, most = array_bytes(content), MOST_ARRAYS * (4 * layout.size + 64)
    if size > most:
        raise Refused("content", f"its arrays have {size} bytes; {most} are the most for this model")


def read_metrics(
    reply: Message, ranges: Mapping[str, Range], most: int, least: int = 1
) -> tuple[int, dict[str, float]]:
    """The number of samples that a client claims, and its measurements.

    Args:
        ranges: the tags that a client may measure, each with the range of its values; other tags are ignored.
        most: how many samples the client has; a client that claims more would weigh more than the others.
        least: the smallest number of samples.

    Raises:
        Refused: one line that says what is wrong.
    """
    record = reply.content.get("metrics") if reply.has_content() else None
    if not isinstance(record, MetricRecord):
        raise Refused("metrics", "it has no metrics")
    samples = record.get("num-examples")
    if not isinstance(samples, int) or not least <= samples <= most:
        told = one_line(repr(samples))
        raise Refused("samples", f"num-examples = {told}: should be a whole number from {least} to {most}")
    measured: dict[str, float] = {}
    for tag, (low, high) in ranges.items():
        if tag not in record:
            continue
        value = record[tag]
        if not isinstance(value, int | float) or not low <= value <= high:
            told = f"a list of {len(value)} numbers" if isinstance(value, list) else one_line(repr(value))
            raise Refused("metrics", f"{tag} = {told}: should be a number from {low:g} to {high:g}")
        measured[tag] = float(value)
    return samples, measured


class Norms(NamedTuple):
    """The L2 norms of an update: of its weights, and of its buffers."""

    weights: float
    buffers: float


class NormLimits:
    """Refuses updates that are much longer than those of other clients.

    With ``auto`` the limit is ``TIMES`` the median of the updates that were accepted in the last rounds. Where an
    update is longer than that, the median of this round's cohort counts too, if it is larger: when most clients send
    long updates, the reason is the training and not an attack.

    Args:
        limit: ``max-update-norm``: ``auto``, ``off``, or the longest that the weights' part of an update may be.
        cohort: clients per round.

    Attributes:
        last: the norms of the updates that were accepted in the last rounds.
        present: those of the present round.
    """

    def __init__(self, limit: float | str, cohort: int) -> None:
        self.limit = limit
        self.last: deque[Norms] = deque(maxlen=REMEMBERED_ROUNDS * cohort)
        self.present: list[Norms] = []

    def check(self, norms: Norms, of_cohort: Callable[[], Sequence[Norms]]) -> None:
        """Check an update.

        Args:
            of_cohort: the norms of all updates of this round, this one included; called only when it matters.

        Raises:
            Refused: the update is too long.
        """
        if self.limit != "off":
            for part, norm in norms._asdict().items():
                fixed = part == "weights" and isinstance(self.limit, float)
                limit = float(self.limit) if fixed else TIMES * median(getattr(n, part) for n in self.last)
                if norm > limit and not fixed and len(others := of_cohort()) > 1:
                    limit = max(limit, TIMES * median(getattr(n, part) for n in others))
                if norm > limit > 0:
                    raise Refused("norm", f"the norm of its {part} is {norm:.3g}; max-update-norm allows {limit:.3g}")

    def settle(self) -> None:
        """Say that the round is whole."""
        self.last.extend(self.present)
        self.present.clear()

    def state(self) -> Tensor:
        """The norms of the last whole rounds, for a checkpoint: float64, shape ``(updates, 2)``."""
        return torch.tensor(list(self.last), dtype=torch.float64).reshape(-1, 2)

    def load_state(self, state: Tensor) -> None:
        """Restore a state that ``state`` returned."""
        self.last.extend(Norms(*row) for row in state.tolist())


def median(norms: Iterable[float]) -> float:
    """The lower median of the norms that are not 0; 0 without any."""
    found = [norm for norm in norms if norm]
    return statistics.median_low(found) if found else 0.0


def norms_of(update: SparseUpdate) -> Norms:
    """The norms of a decoded update."""
    squares = [0.0, 0.0]
    for is_buffer, segment in update.split():
        squares[is_buffer] += segment.sum_of_squares
    return Norms(*map(math.sqrt, squares))


def check_variances(update: SparseUpdate, old: np.ndarray) -> None:
    """Check that BatchNorm's running variances would not become negative, which makes every output NaN.

    Args:
        old: the global weights, float32, shape ``(layout.size,)``.

    Raises:
        Refused: one would.
    """
    variances = running_variances(update.layout)
    changes = update.buffers() if variances else np.empty(0)
    for entry in variances:
        start = entry.start - update.layout.parameters
        new = old[entry.slice] + changes[start : start + entry.size]
        # A client's update is a difference in float32, so that a variance of 0 may come out slightly below.
        if (new < -1e-4 * (1 + np.abs(old[entry.slice]))).any():
            raise Refused("variance", f"its {entry.name} would be {new.min():.3g}")


class Gate:
    """Lets a cohort's replies in, one by one.

    Args:
        experiment: the settings, and what each client holds.
        topology: decodes uploads.

    Attributes:
        run: the name of the run that payloads are bound to.
        limits: the norms of the updates that were let in.
    """

    def __init__(self, experiment: Experiment, topology: ServerTopology) -> None:
        self.experiment, self.topology, self.run = experiment, topology, run_name(experiment.config)
        limit = experiment.config.max_update_norm
        if experiment.config.is_private and limit == "auto":
            limit = "off"  # because it compares clients; `PrivateSum` shortens what is too long
        self.limits = NormLimits(limit, experiment.config.clients_per_round)
        task = experiment.task
        # The server computes what follows from the loss, so that no client needs to be trusted with it.
        self._ranges = measured_by_clients([name for name in task.metrics if name not in task.derived(1.0)])
        self._answers: Sequence[tuple[int, Message]] = ()
        self._norms: list[Norms] | None = None

    def begin(self, answers: Sequence[tuple[int, Message]]) -> None:
        """Begin with the answers of a cohort's clients."""
        self._answers, self._norms = answers, None

    def metrics(self, client: int, reply: Message, least: int) -> tuple[int, dict[str, float]]:
        """The claimed samples, at least so many, and the measurements; see ``read_metrics``.

        Raises:
            Refused: one line that says what is wrong.
        """
        check_content(reply.content, self.experiment.layout)
        return read_metrics(reply, self._ranges, int(self.experiment.partition.sizes[client]), least)

    def update(
        self, client: int, reply: Message, round: int, weights: Tensor
    ) -> tuple[SparseUpdate, Topology | None, Report | None]:
        """The update, topology and report of a reply whose content was checked; see ``ServerTopology.read``.

        Args:
            weights: the global weights, float32, shape ``(layout.size,)``.

        Raises:
            PayloadError: one line that says what is wrong.
        """
        upload = self._read(client, reply, round)
        norms = norms_of(upload[0])
        self.limits.check(norms, lambda: self._norms_of_all(round))
        check_variances(upload[0], weights.numpy())
        self.limits.present.append(norms)
        return upload

    def _read(self, client: int, reply: Message, round: int) -> tuple[SparseUpdate, Topology | None, Report | None]:
        part = self.experiment.part(client)
        return self.topology.read(reply.content, round, binding(self.run, client), part)

    def _norms_of_all(self, round: int) -> list[Norms]:
        """The norms of all updates of the cohort that can be decoded."""
        if self._norms is None:
            self._norms = []
            for client, reply in self._answers:
                with suppress(PayloadError):
                    check_content(reply.content, self.experiment.layout)
                    self._norms.append(norms_of(self._read(client, reply, round)[0]))
        return self._norms
