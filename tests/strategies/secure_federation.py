"""A small federation with secure aggregation, whose replies a test may change or lose."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.pool import with_content
from fedsparse.experiment import Experiment
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.server_app import make_strategy

SMALL = {"clients": 10, "clients-per-round": 10, "rounds": 4, "model": "mlp-small", "distribution": "shards"}
SECURE = {"secure-aggregation": True, "compressor": "none"}
SPARSE = {"sparsity": 0.5, "dense-layers": "last"}
PHASES = ("query.secure_keys", "query.secure_shares", "train", "query.secure_reveal")
Change = Callable[[Message, Message], Message | None]


def as_is(message: Message, reply: Message) -> Message:
    return reply


class Wire(LocalGrid):
    """A local grid that shows every reply to ``change``, which returns what arrives, or None when nothing does."""

    def __init__(self, clients: int, change: Change = as_is) -> None:
        super().__init__("fedsparse.clients.client_app:app", clients)
        self.change, self.seen = change, list[tuple[Message, Message]]()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        batch = list(messages)
        replies = super().send_and_receive(batch, timeout=timeout)
        self.seen += zip(batch, replies, strict=True)
        changed = [self.change(message, reply) for message, reply in zip(batch, replies, strict=True)]
        return [reply for reply in changed if reply is not None]

    def state_now(self, client: int) -> RecordDict:
        """The state in a client's Context in the middle of a round."""
        self.settle()
        return self.state_of(client)

    def bytes_of(self, *, up: bool) -> int:
        """The bytes of all arrays that clients sent, or that they were sent."""
        contents = [pair[up].content for pair in self.seen]
        return sum(len(a.data) for c in contents for r in c.array_records.values() for a in r.values())


def lose(phase: str, *clients: int) -> Change:
    """The replies of these clients in a phase do not arrive."""

    def change(message: Message, reply: Message) -> Message | None:
        return (
            None
            if (message.metadata.message_type, message.metadata.dst_node_id) in [(phase, client) for client in clients]
            else reply
        )

    return change


def federation(dataset: str, change: Change = as_is, **settings: Any) -> tuple[FedAvg, Wire]:
    config = Config.from_mapping({**SMALL, "dataset": dataset, **SECURE, **settings})
    grid = Wire(config.clients, change)
    return make_strategy(Experiment(config), grid.get_node_ids(), grid), grid


def play(strategy: FedAvg, grid: Wire, rounds: int = 1) -> torch.Tensor:
    """Some rounds; returns the change of the weights."""
    before, arrays = strategy.model.weights.clone(), strategy.broadcast(1)
    for round in range(1, rounds + 1):
        messages = list(strategy.configure_train(round, arrays, ConfigRecord(), grid))
        replies = grid.send_and_receive(messages)
        strategy.stepping = False
        arrays, _ = strategy.aggregate_train(round, replies)
        strategy.cohort.settle()
        grid.settle()
    return strategy.model.weights - before


def plain_mean(dataset: str, left: Iterable[int], **settings: Any) -> torch.Tensor:
    """The change of the weights in a round without secure aggregation, in which only these clients' replies arrive."""
    lost = set(range(10)) - set(left)
    strategy, grid = federation(dataset, lose("train", *lost), **{"secure-aggregation": False, **settings})
    return play(strategy, grid)


def with_array(name: str, data: bytes, *, only: bool = True) -> Callable[[Message], Message]:
    def replaced(reply: Message) -> Message:
        array = Array("uint8", (len(data),), "fedsparse/1", data)
        arrays = ArrayRecord({name: array} if only else {**reply.content["arrays"], name: array})
        return with_content(reply, RecordDict({**reply.content, "arrays": arrays}))

    return replaced
