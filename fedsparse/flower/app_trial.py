"""A short run of somebody's app, with compressed replies or with whole ones: its uplink, and how well it learns.

The app's files stay as they are. ``CompressMod`` is called before the app's own mods, and the grid does the server's
part: it decodes the replies before the server sees them, as ``CompressedStrategy`` does. So the bytes and the metrics
are those of an app with the two lines.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import Strategy

from fedsparse.compression import PayloadError
from fedsparse.engine.records import array_bytes
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.flower.app_grid import AppGrid, Enough
from fedsparse.flower.app_runner import run_app
from fedsparse.flower.compress_mod import CompressMod
from fedsparse.flower.decoded import decoded
from fedsparse.flower.names import ACCEPTED, RECORD, ROUND
from fedsparse.flower.plain_arrays import is_float, read
from fedsparse.flower.shared_arrays import SharedArrays
from fedsparse.flower.strategy_check import check_strategy, votes
from fedsparse.vector import Layout

CLIENTS, ROUNDS = 3, 3
"""Of so many clients, over so many rounds, the updates are kept."""
OLD = "fitins.parameters"
"""A record of Flower's older strategies."""


class Trial(NamedTuple):
    """A short run.

    Attributes:
        uplink: bytes of the arrays in all replies of the training.
        replies: of the training.
        rounds: of the training.
        metrics: the last ones, by ``server/``, ``evaluate/`` or ``train/`` and their own names.
        votes: whether the strategy needs every coordinate of every client.
    """

    uplink: int
    replies: int
    rounds: int
    metrics: dict[str, float]
    votes: bool

    @property
    def per_round(self) -> float:
        """Bytes of uplink."""
        return self.uplink / max(self.rounds, 1)


@dataclass
class Heard:
    """What is heard of an app's strategies when they start.

    Attributes:
        metrics: the last ones of ``Strategy.start(evaluate_fn=)``.
        votes: whether a strategy needs every coordinate of every client.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    votes: bool = False


class Updates:
    """Updates of a few clients: float32, ``of[client][round]``, each of shape ``(layout.size,)``."""

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.of: dict[int, list[np.ndarray]] = {}

    def add(self, message: Message, reply: Message) -> None:
        """Keep the change that a reply makes to its message's arrays, unless it has NaN or infinity."""
        node, sent = reply.metadata.src_node_id, SharedArrays(message.content.array_records)
        if (node not in self.of and len(self.of) == CLIENTS) or len(self.of.get(node, ())) == ROUNDS:
            return
        twins = sent.twins(reply.content.array_records)
        records = reply.content.array_records
        new = {(twin, key): array for name, twin in twins.items() for key, array in records[name].items()}
        same = [p for p, old in sent.values.items() if p in new and is_float(new[p]) and new[p].shape == old.shape]
        part = sent.part(same)
        changes = [np.subtract(read(new[p]), sent.values[p], dtype=np.float64).ravel() for p in part.places]
        with np.errstate(over="ignore"):
            update = np.concatenate([np.empty(0), *changes], dtype=np.float32)
        if update.size and np.isfinite(update).all() and part.layout == (self.layout or part.layout):
            self.layout = part.layout
            self.of.setdefault(node, []).append(update)


class TrialGrid(AppGrid):
    """An AppGrid that ends the run after a few rounds of training.

    Args:
        given: the arguments of ``AppGrid``.
        mod: compresses the replies; None leaves them whole.
        rounds: of training.
        updates: where the updates of whole replies are kept.
        heard: of the app's strategies.
        options: more arguments of ``AppGrid``.
    """

    def __init__(
        self, *given: Any, mod: CompressMod | None, rounds: int, updates: Updates, heard: Heard, **options: Any
    ) -> None:
        super().__init__(*given, mod=mod, **options)
        self._compresses, self._rounds, self._updates, self._heard = mod is not None, rounds, updates, heard
        self._accepted: dict[int, int] = {}
        self.is_old = False
        self.round, self.uplink, self.replies = 0, 0, 0

    def deliver(self, batch: list[Message], timeout: float | None) -> list[Message]:
        """As AppGrid does, with the server's part of the compression.

        Raises:
            RunFailed: ``CompressedStrategy`` would refuse a reply.
        """
        asked = {m.metadata.message_id: m for m in batch if m.metadata.message_type.startswith(MessageType.TRAIN)}
        self.round += bool(asked)
        if asked and self.round > self._rounds:
            raise Enough
        sent = {name: shared for name, message in asked.items() if (shared := self._prepared(message))}
        replies = super().deliver(batch, timeout)
        for reply in replies:
            name, node = reply.metadata.reply_to_message_id, reply.metadata.src_node_id
            if name not in asked or not reply.has_content():
                continue
            self.replies += 1
            self.uplink += array_bytes(reply.content)
            if name in sent:
                try:
                    votes = self._heard.votes
                    reply.content, _ = decoded(reply, sent[name], self.round, every_coordinate=votes)
                except PayloadError as error:
                    raise RunFailed(f"a reply is refused: {error}") from None
                self._accepted[node] = self.round
            elif not self._compresses:
                self._updates.add(asked[name], reply)
        return replies

    def _prepared(self, message: Message) -> SharedArrays | None:
        """The message's arrays, where this grid must decode the reply; the app may have a CompressedStrategy."""
        content = message.content
        self.is_old |= OLD in content
        if RECORD in content:
            if not self._compresses:
                content[RECORD].pop(ACCEPTED)  # so that the app's own mod sends all
            return None
        if not self._compresses:
            return None
        accepted = self._accepted.get(message.metadata.dst_node_id, 0)
        message.content = RecordDict({**content, RECORD: ConfigRecord({ROUND: self.round, ACCEPTED: accepted})})
        return SharedArrays(content.array_records)


def trial(
    path: str, mod: CompressMod | None, rounds: int, updates: Updates, *, logdir: Path, name: str, **options: Any
) -> Trial:
    """Run the app in a folder for a few rounds.

    Args:
        path: the folder with the app's pyproject.toml.
        mod: compresses the replies; None leaves them whole.
        rounds: of training, unless the app has fewer.
        updates: where the updates of whole replies are kept.
        logdir, name, options: as for ``run_app``.

    Raises:
        ConfigError, RunFailed: as ``run_app``.
    """
    grids: list[TrialGrid] = []

    def grid(*given: Any, **more: Any) -> TrialGrid:
        grids.append(TrialGrid(*given, mod=mod, rounds=rounds, updates=updates, heard=heard, **more))
        return grids[0]

    with strategies_heard() as heard:
        try:
            done = run_app(path, journal_gb=0, logdir=logdir, name=name, grid=grid, **options)
        finally:
            if grids and grids[0].is_old:  # its server takes Enough for a client's failure, and fails itself
                raise ConfigError("an app of Flower's older kind (server_fn) has no place for CompressedStrategy")
    found = {f"server/{key}": value for key, value in heard.metrics.items()}
    for kind in ("evaluate", "train"):
        last = [row["metrics"] for row in done.rows if row["kind"].startswith(kind)][-1:]
        found |= {f"{kind}/{key}": float(value) for metrics in last for key, value in metrics.items()}
    made = grids[0]
    return Trial(made.uplink, made.replies, min(made.round, rounds), found, heard.votes)


@contextmanager
def strategies_heard() -> Iterator[Heard]:
    """A context in which strategies are heard when they start.

    Raises:
        ConfigError: one cannot work with compressed replies.
    """
    start, heard = Strategy.start, Heard()

    def listening(*given: Any, **named: Any) -> Any:
        asked = inspect.signature(start).bind(*given, **named)
        strategy = asked.arguments["self"]
        check_strategy(strategy, every_coordinate=True)
        heard.votes |= votes(strategy)
        if evaluate := asked.arguments.get("evaluate_fn"):

            def told(*round_and_arrays: Any) -> Any:
                metrics = evaluate(*round_and_arrays)
                numbers = {key: value for key, value in (metrics or {}).items() if isinstance(value, int | float)}
                heard.metrics.update(numbers)
                return metrics

            asked.arguments["evaluate_fn"] = told
        return start(*asked.args, **asked.kwargs)

    Strategy.start = listening  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        Strategy.start = start  # type: ignore[method-assign]
