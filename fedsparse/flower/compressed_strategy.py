"""The server's line: a wrapper around any Message-API strategy, for clients with ``CompressMod``."""

import logging
import sys
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedsparse.compression import PayloadError
from fedsparse.config.effects import without_mistakes
from fedsparse.config.settings import Given
from fedsparse.engine.records import array_bytes
from fedsparse.errors import ConfigError
from fedsparse.flower.alike import alike_for, only_alike, refused
from fedsparse.flower.broadcast import Broadcast
from fedsparse.flower.decoded import Update, decoded
from fedsparse.flower.names import ACCEPTED, RECORD, ROUND
from fedsparse.flower.plain_arrays import pinned, record_of
from fedsparse.flower.shared_arrays import SharedArrays
from fedsparse.flower.strategy_check import check_strategy

log = logging.getLogger("fedsparse")

METHODS = ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate")
"""What the wrapper does itself."""
OWN = ("strategy", "every_coordinate")
"""Its own attributes; all others are the strategy's."""
UPLINK, DOWNLINK = "comm/uplink_bytes", "comm/downlink_bytes"


class Ledger:
    """What a server knows of its clients, whichever of its strategies asks them.

    Attributes:
        round: the present one, of all strategies and their ``start`` together, because each ``start`` begins at 1.
        accepted: node id -> the last round whose payload was accepted.
    """

    def __init__(self) -> None:
        self.round = 0
        self.accepted: dict[int, int] = {}


LEDGERS = WeakKeyDictionary[Grid, Ledger]()


class CompressedStrategy(Strategy):
    """Gives a strategy the replies that the clients' apps had written, and tells the clients what has arrived.

    Each client of a round gets a message of its own, with the round and the last round that was accepted from it: a
    payload that got lost returns to its client's residual. A reply that cannot be decoded becomes an error reply, with
    one line in the log. Dense replies, of clients without ``CompressMod``, are passed on. The aggregated arrays get the
    dtypes that they had before (FedAvg averages BatchNorm's ``num_batches_tracked`` to a float).

    It must be the outermost strategy, around those that add noise, for instance.

    Args:
        strategy: the user's own.
        every_coordinate: refuse replies that leave coordinates out. Strategies that vote coordinate by coordinate
            (median, trimmed mean, Krum, Bulyan) need it; clients need a compressor that sends every coordinate, such as
            ``CompressMod("eden")``.
        downlink: a compressor or preset, as for ``CompressMod``, in which messages tell how the arrays have changed
            since those that a client holds. A client that missed changes is sent all of them, or the whole arrays.
            Every client needs ``CompressMod`` then, and keeps the arrays in its state.
        downlink_density: the share of the coordinates that a change carries.
        seed: of the downlink's random draws.

    The bytes of the arrays in all messages and replies so far are ``downlink_bytes`` and ``uplink_bytes``. Those of a
    round are in its metrics, as ``comm/downlink_bytes`` and ``comm/uplink_bytes``.

    Raises:
        ConfigError: the strategy cannot work with compressed replies; one line.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        every_coordinate: bool = False,
        downlink: str = "none",
        downlink_density: float | None = None,
        seed: int = 0,
    ) -> None:
        check_strategy(strategy, every_coordinate)
        given = {"downlink-compressor": downlink, "downlink-density": downlink_density}
        settings = Given({name: value for name, value in given.items() if value is not None} | {"seed": seed})
        settings.typed = frozenset(settings)
        config = without_mistakes(settings)
        self._broadcast = None if config.downlink_is_whole else Broadcast(config)
        self.strategy, self.every_coordinate = strategy, every_coordinate
        self._bytes, self._of_phase = {UPLINK: 0, DOWNLINK: 0}, {UPLINK: 0, DOWNLINK: 0}
        self._ledger = Ledger()  # until a grid has another one
        self._asked: dict[
            int, SharedArrays
        ] = {}  # by node id, what the present round's messages hold, until it answers
        self._updates: dict[int, Update] = {}  # by node id, of the present round
        self._dtypes = ArrayRecord()  # the arrays that the round began with
        self._inner = {name: getattr(strategy, name) for name in METHODS}
        self._is_broadcast = False

    def __getattr__(self, name: str) -> Any:
        """What the strategy has besides, such as attributes of the user's own."""
        if name.startswith("__") or "strategy" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.strategy, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what the strategy has, such as ``fraction_train``, on the strategy."""
        if name.startswith("_") or name in OWN or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            setattr(self.strategy, name, value)

    def start(self, *positional: Any, **keywords: Any) -> Result:
        """The strategy's own ``start``, which may be the user's, with the methods of this wrapper in place of its."""
        own = vars(self.strategy)
        before = own.copy()
        own.update({name: getattr(self, name) for name in METHODS})
        try:
            return self.strategy.start(*positional, **keywords)
        finally:
            for name in METHODS:
                own.pop(name)
            own.update({name: method for name, method in before.items() if name in METHODS})

    def summary(self) -> None:
        """The strategy's own summary, for the user. A strategy that asks for it, when it begins, is around this one.

        Raises:
            ConfigError: a strategy asks for it.
        """
        if isinstance(sys._getframe(1).f_locals.get("self"), Strategy):
            raise ConfigError(
                "CompressedStrategy is inside another strategy, which would read payloads as arrays: "
                "put it outside, CompressedStrategy(Other(FedAvg()))"
            )
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's messages, each with content of its own and the record for ``CompressMod``."""
        self._ledger, self._asked, self._dtypes = LEDGERS.setdefault(grid, self._ledger), {}, arrays
        self._ledger.round += 1
        messages = list(self._inner["configure_train"](server_round, arrays, config, grid))
        for message, sent in self._own_arrays(messages, training=True):
            node = message.metadata.dst_node_id
            if node in self._asked:
                raise ConfigError(f"the strategy has two messages for node {node} in one round, and may have only one")
            self._prepare(message, sent, {ROUND: self._ledger.round, ACCEPTED: self._ledger.accepted.get(node, 0)})
            self._asked[node] = sent
        self._count(messages, DOWNLINK)
        return messages

    def _own_arrays(self, messages: list[Message], *, training: bool) -> list[tuple[Message, SharedArrays]]:
        """Each message with its arrays, which are one object where messages share them."""
        known: dict[tuple[int, ...], SharedArrays] = {}
        records = [message.content.array_records for message in messages]
        keys = [tuple(map(id, record.values())) for record in records]
        pairs = [(m, known.setdefault(k, SharedArrays(r))) for m, k, r in zip(messages, keys, records, strict=True)]
        self._is_broadcast = bool(
            self._broadcast and len(known) == 1 and self._broadcast.advance(pairs[0][1], training=training)
        )
        return pairs

    def _prepare(self, message: Message, sent: SharedArrays, task: dict[str, Any]) -> None:
        """Give a message content of its own, with the record for ``CompressMod``."""
        records = {name: record_of(arrays) for name, arrays in sent.records.items()}
        if self._broadcast and self._is_broadcast:
            records, more = self._broadcast.message(sent, message.metadata.dst_node_id)
            task |= more
        own: dict[str, Any] = {name: records.get(name, record) for name, record in message.content.items()}
        message.content = RecordDict({**own, RECORD: ConfigRecord(task)})

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the strategy makes of the decoded replies. Those that it does not read are not acknowledged.

        Krum reads all and takes some. The others are acknowledged: sent again with the next updates, they would be
        longer each time, and never taken.
        """
        self._updates = {}
        plain = [reply for reply in map(self._read, self._received(replies)) if reply]
        with only_alike(self.strategy, self._dtypes):
            plain = alike_for(self.strategy, plain, self._dtypes)
            arrays, metrics = self._inner["aggregate_train"](server_round, plain)
        arrays = None if arrays is None else pinned(arrays, self._dtypes)
        used = [node for node, update in self._updates.items() if update.close()]
        if arrays is not None:  # else the strategy made no use of the replies, and they return to the residuals
            self._ledger.accepted |= dict.fromkeys(used, self._ledger.round)
        return arrays, self._with_bytes(metrics)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's messages, counted."""
        messages = list(self._inner["configure_evaluate"](server_round, arrays, config, grid))
        if self._broadcast:
            self._ledger = LEDGERS.setdefault(grid, self._ledger)
            for message, sent in self._own_arrays(messages, training=False):
                self._prepare(message, sent, {ROUND: self._ledger.round})
        self._count(messages, DOWNLINK)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """What the strategy makes of the replies, counted."""
        arrived = self._received(replies)
        with only_alike(self.strategy, self._dtypes):
            metrics = self._inner["aggregate_evaluate"](server_round, arrived)
        return self._with_bytes(metrics) if arrived else metrics

    def _read(self, reply: Message) -> Message | None:
        """A reply as the client's app had written it; None for one that this round has no use for."""
        node = reply.metadata.src_node_id
        if reply.has_error() or not reply.has_content():
            return reply
        if node not in self._asked:
            log.warning("the reply of node %d is dropped: it was not asked in this round, or answered before", node)
            return None
        try:
            reply.content, update = decoded(
                reply, self._asked[node], self._ledger.round, every_coordinate=self.every_coordinate
            )
        except PayloadError as error:
            return refused(reply, str(error))
        del self._asked[node]
        if update:
            self._updates[node] = update
        return reply

    def _received(self, replies: Iterable[Message]) -> list[Message]:
        """The replies, counted, with what they say of the arrays that their nodes hold."""
        arrived = list(replies)
        self._count(arrived, UPLINK)
        if self._broadcast:
            for reply in arrived:
                self._broadcast.answered(reply.metadata.src_node_id, failed=reply.has_error())
        return arrived

    def _count(self, messages: Iterable[Message], way: str) -> None:
        count = sum(array_bytes(message.content) for message in messages if message.has_content())
        self._bytes[way] += count
        self._of_phase[way] = count

    def _with_bytes(self, metrics: MetricRecord | None) -> MetricRecord:
        metrics = MetricRecord() if metrics is None else metrics
        for way, count in self._of_phase.items():
            metrics[way] = count
        return metrics

    @property
    def uplink_bytes(self) -> int:
        """Of the arrays in all replies so far."""
        return self._bytes[UPLINK]

    @property
    def downlink_bytes(self) -> int:
        """Of the arrays in all messages so far."""
        return self._bytes[DOWNLINK]
