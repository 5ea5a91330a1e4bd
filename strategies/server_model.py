"""The network that is trained, at the server: its weights, and what belongs to them."""

from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord
from torch import Tensor

from fedsparse.aggregation.mean import Votes
from fedsparse.catalogue import STRATEGIES
from fedsparse.checkpoint import State
from fedsparse.compression import NonFiniteError, PayloadError
from fedsparse.errors import ConfigError, Diverged
from fedsparse.experiment import Experiment
from fedsparse.plugins import blamed, named
from fedsparse.strategies.acceptance import Gate
from fedsparse.strategies.downlink import Downlink
from fedsparse.strategies.frozen_weights import FrozenWeights
from fedsparse.strategies.replies import Replies
from fedsparse.strategies.server_optimizer import ServerOptimizer
from fedsparse.strategies.server_topology import ServerTopology
from fedsparse.training.batchnorm import clamp_variances_
from fedsparse.vector import FlatModel


class ServerModel:
    """The global weights, the topology that says which of them exist, the server optimizer, and the downlink.

    Args:
        experiment: the settings, and the network.
        topology: says which weights exist, and refuses a payload made for another layout.
        weights: initial global vector, float32 on the CPU, shape ``(layout.size,)``; changed in place.
        ranks: of the low-rank layers, where they are not those that the settings begin with.

    Attributes:
        name: of the network, in the settings.
        layout: of ``weights``.
        optimizer: computes the server's step.
        downlink: sends whole weights or compressed changes.
        frozen: the weights beside adapters; None without adapters.
        gate: checks what clients that train the network reply.
        sent: the last broadcast.
    """

    def __init__(
        self, experiment: Experiment, topology: ServerTopology, weights: Tensor, ranks: Sequence[int] = ()
    ) -> None:
        self.name = experiment.config.model
        self.config, self.experiment, self.layout = experiment.config, experiment, experiment.layout
        self.topology, self.weights, self.ranks = topology, weights, list(ranks)
        with blamed("strategy", self.config.strategy):
            make = named(STRATEGIES, self.config.strategy)
            self.optimizer: ServerOptimizer = make(self.config, self.layout.parameters)
        self.downlink, self.gate = Downlink(self.config), Gate(experiment, topology)
        self.frozen = FrozenWeights(experiment.frozen) if self.config.lora_rank else None
        self.sent = ArrayRecord()
        topology.current.apply_(weights)

    @property
    def told(self) -> dict[str, int | str | list[int]]:
        """What every message says of the network: its topology, its ranks where the settings do not say them, and the
        weights beside its adapters."""
        ranks = {"ranks": self.ranks} if self.ranks else {}
        return self.topology.named | ranks | ({"frozen": self.frozen.hash} if self.frozen else {})

    @property
    def vectors(self) -> list[np.ndarray]:
        """The present weights, and those beside adapters once they differ from the first."""
        return [self.weights.numpy(), *(self.frozen.added_to if self.frozen else [])]

    @property
    def trained(self) -> FlatModel:
        """The network with the present weights."""
        self.experiment.model.vector.copy_(self.weights)
        return self.experiment.model

    def step(self, update: Tensor) -> None:
        """Take the server's step.

        Args:
            update: the cohort's, float32, shape ``(layout.size,)``; may be overwritten.
        """
        split = self.layout.parameters
        with blamed("strategy", self.config.strategy):
            self.weights[:split] += self.optimizer.step(update[:split])
        self.weights[split:] += update[split:]  # running statistics are averaged, whatever the server's optimizer
        clamp_variances_(self.weights, self.layout)

    def add_to_frozen(self, products: Mapping[str, tuple[Tensor, Tensor]]) -> bool:
        """Add to the weights beside adapters; see ``FrozenWeights.add``. False where the products overflow."""
        assert self.frozen
        try:
            self.frozen.add(products)
        except PayloadError:
            return False
        return True

    def follow(self, round: int, received: Replies, votes: Votes | None) -> None:
        """Let the topology follow the new weights; the optimizer forgets the weights that changed."""
        stale = self.topology.follow(round, received, votes, self.weights)
        if stale is not None:
            self.optimizer.forget(stale)

    def broadcast(self, round: int) -> ArrayRecord:
        """The payload of the existing weights for the clients of ``round``.

        Raises:
            Diverged: NaN or infinity in them.
        """
        try:
            self.sent = self.downlink.broadcast(self.weights, self.experiment.model, self.topology.compact, round)
        except NonFiniteError as error:
            reason = f"the global weights diverged ({error.layer}); lower the learning rates"
            raise Diverged(f"round {round}: {reason}") from None
        return self.sent

    def release(self) -> None:
        """Free a model's worth of memory: Flower's loop still holds what was sent."""
        self.downlink.release()
        self.sent.clear()

    def state_dict(self) -> State:
        """What decides the next rounds: weights, server optimizer, topology, downlink, ranks, frozen weights."""
        return {
            "weights": self.weights,
            "optimizer": dict(self.optimizer.state_dict()),
            "topology": self.topology.state_dict(),
            "downlink": self.downlink.state_dict(),
            "ranks": self.ranks,
            "lost": list(self.experiment.lost),
            "frozen": self.frozen.first if self.frozen else "",
            "added": self.frozen.state_dict() if self.frozen else {},
            "norms": self.gate.limits.state(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned, of a network of the same ranks.

        Raises:
            ConfigError: the weights beside adapters began as others.
        """
        if self.frozen:
            if state["frozen"] != self.frozen.first:
                raise ConfigError(f"init = {self.config.init}: has other weights than when the run began")
            self.frozen.load_state_dict(state["added"])
        self.weights.copy_(state["weights"])
        with blamed("strategy", self.config.strategy):
            self.optimizer.load_state_dict(state["optimizer"])
        self.topology.load_state_dict(state["topology"])
        self.downlink.load_state_dict(state["downlink"], self.topology.compact.layout)
        self.ranks = state["ranks"]
        self.gate.limits.load_state(state["norms"])
