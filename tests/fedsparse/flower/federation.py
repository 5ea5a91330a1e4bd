"""Small federations of other people's apps, through Flower's real Message objects."""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Result, Strategy

from fedsparse.engine import LocalGrid

Train = Callable[[dict[str, np.ndarray], int, int], dict[str, np.ndarray]]
"""New arrays from those of the message, the node and the round."""

app: ClientApp
SIZE = 1000


def drift(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
    """An update with a few large coordinates, another one for each node and round."""
    rng = np.random.default_rng((node, round))
    return {
        name: (array + rng.standard_t(3, array.shape) / 100).astype(array.dtype)
        if array.dtype.kind == "f"
        else array + 1
        for name, array in arrays.items()
    }


def client_app(*mods: Any, train: Train = drift, seen: list[RecordDict] | None = None) -> ClientApp:
    """An app of NumPy's that answers with the trained arrays under the name that it got them."""
    made = ClientApp(mods=list(mods))

    @made.train()
    def answer(message: Message, context: Context) -> Message:
        if seen is not None:
            seen.append(message.content)
        (config,) = message.content.config_records.values()
        content: dict[str, Any] = {"metrics": MetricRecord({"num-examples": 1 + context.node_id % 3, "loss": 1.0})}
        for name, record in message.content.array_records.items():
            arrays = {key: array.numpy() for key, array in record.items()}
            new = train(arrays, context.node_id, int(config["server-round"]))  # type: ignore[arg-type]
            content[name] = ArrayRecord({key: Array(np.asarray(array)) for key, array in new.items()})
        return Message(RecordDict(content), reply_to=message)

    @made.evaluate()
    def score(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 1.0})}), reply_to=message)

    return made


class Network(LocalGrid):
    """A LocalGrid whose replies pass through a function that may lose, change or repeat them."""

    def __init__(self, client: ClientApp, nodes: int, between: Callable[[list[Message]], list[Message]]) -> None:
        global app
        app = client
        super().__init__(f"{__name__}:app", nodes)
        self.between = between

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.between(super().send_and_receive(messages, timeout=timeout))


def wire(replies: list[Message]) -> list[dict[str, tuple[str, str]]]:
    """What is in each reply's arrays, by name: stype and dtype."""
    return [{k: (a.stype, a.dtype) for r in m.content.array_records.values() for k, a in r.items()} for m in replies]


def play(
    strategy: Strategy,
    client: ClientApp,
    arrays: Mapping[str, np.ndarray] | None = None,
    *,
    rounds: int = 3,
    nodes: int = 4,
    between: Callable[[list[Message]], list[Message]] = lambda replies: replies,
    **start: Any,
) -> tuple[Result, Network]:
    """Run a federation from these arrays."""
    random.seed(0)  # with which Flower samples
    grid = Network(client, nodes, between)
    initial = ArrayRecord({k: Array(v) for k, v in (arrays or {"w": np.zeros(SIZE, np.float32)}).items()})
    return strategy.start(grid, initial, num_rounds=rounds, train_config=ConfigRecord({"lr": 0.1}), **start), grid
