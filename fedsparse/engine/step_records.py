"""The step log of one client's training, as a record of its reply."""

import math
from typing import NamedTuple

from flwr.app import MetricRecord, RecordDict

from fedsparse.compression import PayloadError
from fedsparse.telemetry.step_log import MOST, StepEntry, StepLog

RECORD, TAKEN = "steps", "taken"  # the record's name; its number of local steps that the client took in all
MOST_STEPS = 10**9


class Steps(NamedTuple):
    """A client's entries of one round, and how many local steps it took."""

    entries: list[StepEntry]
    taken: int


def step_record(log: StepLog, entries: list[StepEntry]) -> MetricRecord:
    """The record with the log's entries, at most ``MOST`` of them, evenly spread."""
    kept = entries[:: -(-len(entries) // MOST) or 1]
    columns = {field: [getattr(entry, field) for entry in kept] for field in StepEntry._fields}
    return MetricRecord({TAKEN: log.step, **columns})


def read_steps(content: RecordDict) -> Steps:
    """The step log in a reply; empty when the reply has none.

    Raises:
        PayloadError: one line that says what is wrong with it.
    """
    record = content.get(RECORD, MetricRecord({TAKEN: 0, **{field: [] for field in StepEntry._fields}}))
    if not isinstance(record, MetricRecord) or set(record) != {TAKEN, *StepEntry._fields}:
        raise PayloadError("its step log has other columns than a step log")
    taken, columns = record[TAKEN], [record[field] for field in StepEntry._fields]
    if not isinstance(taken, int) or not 0 <= taken <= MOST_STEPS:
        raise PayloadError(f"its step log is about {taken!r} steps")
    lists = [column for column in columns if isinstance(column, list)]
    lengths = {len(column) for column in lists}
    if len(lists) < len(columns) or len(lengths) > 1 or max(lengths) > MOST:
        raise PayloadError(f"its step log should have columns of one length, at most {MOST}")
    entries = [StepEntry(*row) for row in zip(*lists, strict=True)]
    for entry in entries:
        if not all(map(math.isfinite, entry)) or not 1 <= entry.step <= taken:
            raise PayloadError(f"its step log has a wrong entry, of step {entry.step}")
    return Steps(entries, taken)
