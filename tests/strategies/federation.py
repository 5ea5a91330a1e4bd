"""A small federation of the project's own clients, played round by round in this process."""

import copy
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import NamedTuple

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from torch import Tensor, nn

from fedsparse.clients.client_app import app as client_app
from fedsparse.compression.wire import binding
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.pool import with_content
from fedsparse.engine.step_records import Steps
from fedsparse.experiment import Experiment
from fedsparse.sparsity import Topology
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.server_app import make_strategy
from fedsparse.tasks import Task
from fedsparse.vector import FlatModel

SETTINGS = {
    "clients": 6,
    "clients-per-round": 4,
    "rounds": 8,
    "distribution": "dirichlet",
    "sparsity": 0.5,
    "readjustment-interval": 1,
    "readjustment-end": 4,
    "momentum": 0.9,
    "weight-decay": 0.01,
    "eval-clients": True,
    "eval-every": 2,
}

LOST: set[tuple[int, int]] = set()
"""(round, partition id) of training that fails after it has changed the client's state, as the worst crash would."""

TRAFFIC: list[tuple[Message, Message]] = []
"""Every message of a client's training, and the reply."""

STEPS: list[dict[int, Steps]] = []
"""The step log of every round."""


class Round(NamedTuple):
    """The state after a round: its number, the global weights, their topology, and the measurements."""

    number: int
    weights: Tensor
    topology: Topology
    metrics: dict[str, float]
    details: dict[str, float]


def app(message: Message, context: Context) -> Message:
    reply = client_app(message, context)
    if message.metadata.message_type == "train":
        if (message.content["task"]["round"], context.node_id) in LOST:
            raise RuntimeError("lost")
        # Copies, because the server empties its records.
        kept = RecordDict({key: record.copy() for key, record in message.content.items()})
        TRAFFIC.append((with_content(message, kept), reply))
    return reply


def play(dataset: str, rounds: int = 5, lost: Set[tuple[int, int]] = frozenset(), **settings: object) -> list[Round]:
    """Play some rounds; returns their states, with round 0 for the state before training."""
    with federation(dataset, **settings) as (strategy, grid):
        LOST.clear()
        LOST.update(lost)
        played = [state_of(strategy, 0)]
        for round in range(1, rounds + 1):
            play_round(strategy, grid, round)
            played.append(state_of(strategy, round))
            STEPS.append(strategy.cohort.tally.steps)
    return played


@contextmanager
def federation(dataset: str, **settings: object) -> Iterator[tuple[FedAvg, LocalGrid]]:
    """A federation before its first round."""
    config = Config.from_mapping(SETTINGS | {"dataset": dataset} | settings)
    TRAFFIC.clear()
    STEPS.clear()
    with LocalGrid("tests.strategies.federation:app", config.clients) as grid:
        strategy = make_strategy(Experiment(config), grid.get_node_ids(), grid)
        strategy.broadcast(1)
        yield strategy, grid


def play_round(strategy: FedAvg, grid: LocalGrid, round: int) -> None:
    """Train and evaluate; the weights of the round are already broadcast."""
    messages = strategy.configure_train(round, ArrayRecord(), {}, grid)
    arrays, _ = strategy.aggregate_train(round, grid.send_and_receive(messages))
    messages = list(strategy.configure_evaluate(round, arrays, {}, grid))
    strategy.aggregate_evaluate(round, grid.send_and_receive(messages))


def state_of(strategy: FedAvg, round: int) -> Round:
    topology = strategy.model.topology
    metrics, details = dict(strategy.cohort.tally.metrics), dict(topology.details)
    return Round(round, strategy.model.weights.clone(), topology.current, metrics, details)


def binding_of(message: Message) -> int:
    """What the payloads in the reply to this message are bound to; node ids are partition ids here."""
    return binding(str(message.content["task"]["run"]), message.metadata.dst_node_id)


def experiment_of(config: Config, module: nn.Module) -> Experiment:
    """An experiment with ``module`` in place of the network of the settings, and without data."""
    experiment = Experiment(config)
    experiment.model, experiment.task = FlatModel(copy.deepcopy(module)), Task()
    return experiment


def network() -> nn.Module:
    """A model with convolutions, a normalisation layer and linear layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 10),
    )  # fmt: skip
