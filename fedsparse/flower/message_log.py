"""What a Flower app's messages cost and say: counted by kind, written into a run folder, shown in the terminal."""

import csv
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from flwr.app import Message, MetricRecord
from rich.console import Console
from rich.table import Table

from fedsparse.engine.records import content_bytes
from fedsparse.errors import harmless, reason
from fedsparse.telemetry.events import SummaryWriter
from fedsparse.telemetry.folder import write_json
from fedsparse.telemetry.progress import WRITTEN, human_bytes

log = logging.getLogger("fedsparse")

COUNTS = ("messages", "failed", "downlink-bytes", "uplink-bytes", "seconds")
"""What is counted: messages; those without a good reply; the bytes of all messages and of all replies; wall-clock."""
WEIGHT = "num-examples"
"""The metric by which Flower's strategies weight the others."""
SHOWN = 3
"""The most metrics on a line in the terminal."""


class MessageLog:
    """The rows of a run: one for each kind of message in each batch that the app sends.

    Args:
        folder: the run folder, for ``messages.csv``, ``result.json`` and TensorBoard.
        head: the entries of ``result.json`` that are known at the start.

    Attributes:
        rows: ``batch``, ``round``, ``kind``, the counts, and ``metrics`` of the replies, averaged.
        failure: the last reason why a message had no good reply.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.folder, self._head = folder, dict(head)
        self.rows: list[dict[str, Any]] = []
        self.failure = ""
        self._batches = 0
        self._file = (folder / "messages.csv").open("w", newline="")
        columns = ("batch", "round", "kind", *COUNTS)
        self._csv = csv.DictWriter(self._file, columns, extrasaction="ignore", lineterminator="\n")
        self._csv.writeheader()
        self._board = SummaryWriter(str(folder))
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind in (KeyboardInterrupt, SystemExit)
        ended = "complete" if kind is None else "interrupted" if stopped else "failed"
        self._file.close()
        self._board.close()
        summary = self.summary() | {"ended": ended}
        write_json(self.folder / "result.json", {**self._head, "rounds": self.rows, "summary": summary})
        self._show(summary)

    def add(self, messages: Sequence[Message], replies: Sequence[Message], seconds: float, again: bool) -> None:
        """Count a batch that has ended.

        Args:
            again: whether the replies are those of the run before it was stopped.
        """
        self._batches += 1
        answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
        for kind in dict.fromkeys(message.metadata.message_type for message in messages):
            asked = [message for message in messages if message.metadata.message_type == kind]
            answered = [answers.get(message.metadata.message_id) for message in asked]
            row: dict[str, Any] = {"batch": self._batches, "round": _round_of(asked[0], self._batches), "kind": kind}
            row |= _counted(asked, answered, seconds * len(asked) / len(messages))
            self.rows.append(row)
            self._csv.writerow(row)
            self._file.flush()
            for name, value in row["metrics"].items():
                self._board.add_scalar(f"{kind}/{name}", float(value), row["round"])
            self._tell(row, [a for a in answered if a and a.has_error()], again)

    def _tell(self, row: Mapping[str, Any], failures: Sequence[Message], again: bool) -> None:
        down, up = (human_bytes(row[f"{way}-bytes"]) for way in ("downlink", "uplink"))
        line = f"round {row['round']} {row['kind']}: {row['messages']} messages, {down} down, {up} up, "
        line += "replies of before" if again else f"{row['seconds']:.2f} s"
        for name, value in list(row["metrics"].items())[:SHOWN]:
            line += f", {name} {float(value):.4g}"
        for failure in failures:
            log.info("client %d failed: %s", failure.metadata.src_node_id, harmless(failure.error.reason or ""))
        if row["failed"]:
            why = reason(failures[0].error.reason or "") if failures else "no reply in time"
            self.failure = f"client {failures[0].metadata.src_node_id}: {why}" if failures else why
            line += f"; {row['failed']} failed, {self.failure}"
        print(line, flush=True)

    def summary(self) -> dict[str, Any]:
        """All counts, over all kinds and by kind."""
        kinds = dict.fromkeys(row["kind"] for row in self.rows)
        by_kind = {k: {c: sum(r[c] for r in self.rows if r["kind"] == k) for c in COUNTS} for k in kinds}
        whole = {count: sum(counts[count] for counts in by_kind.values()) for count in COUNTS}
        return whole | {"seconds": time.perf_counter() - self._began, "kinds": by_kind}

    def _show(self, summary: Mapping[str, Any]) -> None:
        table = Table("", "messages", "failed", "downlink", "uplink", "seconds", box=None, padding=(0, 2, 0, 0))
        for column in table.columns[1:]:
            column.justify = "right"
        ended = "" if summary["ended"] == "complete" else f" ({summary['ended']})"
        for name, counts in {**summary["kinds"], f"all{ended}": summary}.items():
            numbers = [str(counts["messages"]), str(counts["failed"])]
            numbers += [human_bytes(counts["downlink-bytes"]), human_bytes(counts["uplink-bytes"])]
            table.add_row(name, *numbers, f"{counts['seconds']:.1f}")
        Console().print(table)
        print(f"{WRITTEN}{self.folder}", flush=True)


def _counted(asked: Sequence[Message], answered: Sequence[Message | None], seconds: float) -> dict[str, Any]:
    good = [reply for reply in answered if reply and reply.has_content()]
    return {
        "messages": len(asked),
        "failed": len(asked) - len(good),
        "downlink-bytes": sum(content_bytes(message.content) for message in asked),
        "uplink-bytes": sum(content_bytes(reply.content) for reply in good),
        "seconds": seconds,
        "metrics": {name: _plain(value) for name, value in _mean_metrics(good)},
    }


def _round_of(message: Message, otherwise: int) -> int:
    """The round that Flower's strategies name in a message; the number of the batch where there is none."""
    named = [config.get("server-round") for config in message.content.config_records.values()]
    rounds = [number for number in (*named, message.metadata.group_id) if str(number).isdecimal()]
    return int(str(rounds[0])) if rounds else otherwise


def _mean_metrics(replies: Sequence[Message]) -> Iterator[tuple[str, float]]:
    """Every metric that is one number in all replies, averaged as Flower's strategies do."""
    records = [_flat(reply) for reply in replies]
    weights = [record.get(WEIGHT, 1.0) for record in records]
    for name in records[0] if records and sum(weights) else ():
        if name != WEIGHT and all(name in record for record in records):
            yield name, sum(r[name] * w for r, w in zip(records, weights, strict=True)) / sum(weights)


def _flat(reply: Message) -> dict[str, float]:
    records: Sequence[MetricRecord] = list(reply.content.metric_records.values())
    return {key: value for record in records for key, value in record.items() if isinstance(value, int | float)}


def _plain(value: float) -> float | str:
    """A number for JSON, which has no NaN and no infinity."""
    return value if math.isfinite(value) else str(value)
