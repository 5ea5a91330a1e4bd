"""A round of federated averaging over compressed updates (McMahan et al. 2017, algorithm 1).

    configure_train    sample a cohort, send it the weights
    aggregate_train    check and decode the uploads one at a time, add them up, take the server's step,
                       let the topology follow, send the new weights

The aggregator adds up the uploads, the server optimizer computes the step, and the topology says which weights exist.
"""

import logging
from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedsparse.aggregation import Aggregator
from fedsparse.aggregation.products import ProductMean
from fedsparse.catalogue import AGGREGATORS, STRATEGIES
from fedsparse.checkpoint import State
from fedsparse.compression import NonFiniteError
from fedsparse.engine import LocalGrid
from fedsparse.errors import ConfigError, Diverged, RunFailed
from fedsparse.experiment import Experiment
from fedsparse.plugins import blamed, call, named
from fedsparse.privacy.client_level import ClientLevel
from fedsparse.strategies.attack import Attack
from fedsparse.strategies.cohort import Cohort
from fedsparse.strategies.downlink import Downlink
from fedsparse.strategies.ensemble import Ensemble
from fedsparse.strategies.layer_details import layer_histograms
from fedsparse.strategies.nodes import Nodes
from fedsparse.strategies.replies import Replies
from fedsparse.strategies.reshape import reshaped
from fedsparse.strategies.secure_cohort import SecureCohort
from fedsparse.strategies.server_optimizer import ServerOptimizer
from fedsparse.strategies.server_topology import ServerTopology
from fedsparse.strategies.uplink_share import UplinkShare
from fedsparse.telemetry.histograms import Histogram
from fedsparse.training.batchnorm import clamp_variances_

log = logging.getLogger("fedsparse")

COHORTS = 3
"""How many cohorts a round asks at most, until ``min-replies`` clients have sent a usable update."""


class FedAvg(Strategy):
    """w <- w + step(sum_i n_i update_i / sum_i n_i), with n_i the samples of client i.

    Args:
        experiment: the settings, and what follows from them.
        topology: says which weights exist, and refuses a payload made for another layout.
        weights: initial global vector, float32 on the CPU, shape ``(layout.size,)``; changed in place.
        nodes: Flower's node id of every partition id.

    Attributes:
        experiment: that of the present network.
        weights: the present global vector.
        cohort: the clients of the present round, and what they measured.
        optimizer: the server optimizer.
        privacy: the guarantee of differential privacy; None without one.
        details: histograms of the mean update of the last round that was evaluated, for the trackers.
        has_details: whether the strategy makes these histograms.
        uplink: the account of the uplink budget; None without one.
        stepping: whether the server has begun a step whose round is not whole yet. Meanwhile there is nothing to save.
    """

    def __init__(self, experiment: Experiment, topology: ServerTopology, weights: Tensor, nodes: Sequence[int]) -> None:
        self.config = experiment.config
        cohort = SecureCohort if self.config.secure_aggregation else Cohort
        self.cohort = cohort(experiment, Nodes(nodes), topology)
        self._begin(experiment, topology, weights)
        self.privacy = ClientLevel(self.config, self.layout, experiment.method) if self.config.is_private else None
        if self.privacy:
            self.cohort.told["dp-noise"] = self.privacy.accountant.noise
        self.uplink = UplinkShare(self.config) if self.config.uplink_budget else None
        topology.current.apply_(weights)
        self._broadcast, self.stepping, self.has_details = ArrayRecord(), False, False
        self.details: dict[str, Histogram] = {}

    def _begin(self, experiment: Experiment, topology: ServerTopology, weights: Tensor) -> None:
        """Make what a network needs that trains from these weights."""
        with blamed("strategy", self.config.strategy):
            make = named(STRATEGIES, self.config.strategy)
            self.optimizer: ServerOptimizer = make(self.config, experiment.layout.parameters)
        self.experiment, self.layout, self.topology, self.weights = experiment, experiment.layout, topology, weights
        self.downlink = self.cohort.downlink = Downlink(self.config)
        self._attack = Attack(experiment, topology, self.cohort.gate.run)

    def _reshape(self, round: int) -> None:
        """Go on with a network of other ranks, where the settings want that after this round.

        The server's momentum is about weights that are gone, and begins anew.
        """
        new = reshaped(self.experiment, self.weights, round)
        if new is not self.experiment:
            before, after, ranks = self.layout.parameters, new.layout.parameters, ", ".join(map(str, new.ranks))
            log.warning("round %d: %s weights become %s, by ranks %s", round, f"{before:,}", f"{after:,}", ranks)
            topology = ServerTopology.of_round_1(new)
            self.cohort.follow(new, topology)
            self._begin(new, topology, new.model.vector.cpu().clone())
            self.cohort.told["ranks"] = list(new.ranks)

    def state_dict(self) -> State:
        """What decides the next rounds, but for the ledger: weights, server optimizer, topology, downlink, norms."""
        return {
            "weights": self.weights,
            "optimizer": dict(self.optimizer.state_dict()),
            "topology": self.topology.state_dict(),
            "downlink": self.downlink.state_dict(),
            "norms": self.cohort.gate.limits.state(),
            "uplink": self.uplink.state_dict() if self.uplink else {},
            "frozen": self.cohort.told.get("frozen", ""),
            "ranks": self.cohort.told.get("ranks", []),
            "lost": list(self.experiment.lost),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned.

        Raises:
            ConfigError: the frozen weights are others now.
        """
        if state["frozen"] != self.cohort.told.get("frozen", ""):
            raise ConfigError(f"init = {self.config.init}: has other weights than when the run began")
        self.weights.copy_(state["weights"])
        with blamed("strategy", self.config.strategy):
            self.optimizer.load_state_dict(state["optimizer"])
        self.topology.load_state_dict(state["topology"])
        self.downlink.load_state_dict(state["downlink"], self.topology.compact.layout)
        self.cohort.gate.limits.load_state(state["norms"])
        if self.uplink:
            self.uplink.load_state_dict(state["uplink"])
        if state["ranks"]:
            self.cohort.told["ranks"] = state["ranks"]

    @property
    def notes(self) -> State:
        """What the run's result says of it beside its measurements."""
        told: State = {}
        if self.config.attack != "none":
            hostile = len(self._attack.attackers)
            told["attack"] = f"{self.config.attack} by {hostile} of {self.config.clients} clients"
        return told | ({"privacy": self.privacy.claim()} if self.privacy else {})

    def summary(self) -> None:
        """Print nothing, because the run prints its own header; Flower calls this before it starts."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort; one message a client."""
        self._broadcast, self._grid = arrays, grid
        if self.uplink:
            self.cohort.told |= self.uplink.told(server_round)
        self.cohort.sample(server_round, grid)
        return self.cohort.messages(MessageType.TRAIN, server_round, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add up the uploads in the order of partition ids, and take the server's step.

        With fewer than ``min-replies`` usable updates, the round goes on with another cohort, whose updates are added.

        Raises:
            RunFailed: there are too few usable updates, unless all clients only missed the simulated deadline.
            Diverged: the clients' updates or their mean are not finite; the weights are those of the round before.
        """
        self._broadcast.clear()  # frees a model's worth of memory: Flower's loop still holds this record
        cohort, received = self.cohort, self._received(server_round)
        self._add(received, replies, server_round)
        for attempt in range(2, COHORTS + 1):
            if not self._needs_more(received) or cohort.is_hopeless:
                break
            log.warning("round %d: %d usable replies; asking another cohort", server_round, received.count)
            cohort.sample_again(server_round, attempt, self._grid)
            messages = cohort.messages(MessageType.TRAIN, server_round, self.broadcast(server_round))
            self._add(received, self._grid.send_and_receive(messages, timeout=self.config.round_timeout), server_round)
        if self._needs_more(received):
            self._give_up(server_round, received)
        samples = received.samples
        self.stepping = True
        if self._is_void(received):
            log.warning("round %d: %d usable replies; the weights stay", server_round, received.count)
        else:
            with cohort.timer("aggregate"):
                self._step(server_round, received)
                self._reshape(server_round)
        if self.privacy:
            cohort.metrics |= self.privacy.measured(server_round)
        del received  # the broadcast below is as large
        cohort.close(samples)
        if self.uplink:
            self.uplink.spend(server_round, cohort.metrics)
        return self.broadcast(server_round + 1), MetricRecord(dict(cohort.metrics))

    def _add(self, received: Replies, replies: Iterable[Message], round: int) -> None:
        """Check, decode and add up a cohort's replies."""
        answers = self.cohort.answers(replies, round)
        self._attack.poison(answers, round)
        for upload in self.cohort.uploads(answers, round, self.weights):
            with self.cohort.timer("aggregate"), blamed("aggregator", self.config.aggregator):
                received.add(upload)

    def _needs_more(self, received: Replies) -> bool:
        """Whether too few updates are usable, and not only because all others came too late.

        With differential privacy one cohort is all, because to ask another one would tell who is in the first.
        """
        if self.privacy:
            return False
        missing = self.cohort.asked - received.count
        return received.count < self.config.min_replies and self.cohort.late < missing

    def _is_void(self, received: Replies) -> bool:
        """Whether the weights stay as they were: all clients came too late, or too few have added their noise.

        The server's own noise makes every round count, even without a single client.
        """
        return not self.config.noise_by_server and received.count < (self.config.min_replies if self.privacy else 1)

    def _give_up(self, round: int, received: Replies) -> None:
        cohort, least = self.cohort, self.config.min_replies
        diverged = not received.count and all(NonFiniteError.__name__ in failure for failure in cohort.failures)
        kind = Diverged if diverged else RunFailed
        if not received.count:
            raise kind(f"round {round}: all {cohort.asked} clients failed; {cohort.failures[0]}")
        told = f"only {received.count} of {cohort.asked} clients sent a usable update, and min-replies = {least}"
        raise RunFailed(f"round {round}: {told}; {cohort.failures[0]}")

    def _received(self, round: int) -> Replies:
        ensemble = Ensemble(self.experiment, self.weights) if self.config.distill == "ensemble" else None
        return Replies(self._aggregator(round), self.topology.current, ensemble)

    def _aggregator(self, round: int) -> Aggregator:
        if self.privacy:
            # In a deployment, clients know the seed.
            return self.privacy.sum_of(round, self.topology.compact, secret=not isinstance(self._grid, LocalGrid))
        if self.config.lowrank_average == "products":
            return ProductMean(self.experiment.model, self.weights, self.topology.current.mask)
        with blamed("aggregator", self.config.aggregator):
            make = named(AGGREGATORS, self.config.aggregator)
            mask = self.topology.current.mask
            aggregator: Aggregator = call(make, self.layout.size, mask, byzantine=self.config.byzantine)
        return aggregator

    def _step(self, round: int, received: Replies) -> None:
        """The server's step; then the topology follows, and the optimizer forgets the weights that changed."""
        with blamed("aggregator", self.config.aggregator):
            update, votes = received.result(self.weights, votes=self.topology.clients_choose(round))
        if not update.isfinite().all():  # finite updates may add up to infinity
            raise Diverged(f"round {round}: the mean update is not finite; {self.cohort.longest}")
        split = self.layout.parameters
        with blamed("strategy", self.config.strategy):
            self.weights[:split] += self.optimizer.step(update[:split])
        if self.has_details and self.evaluates(round):
            self.details = layer_histograms("update", update, self.topology.current)
        self.weights[split:] += update[split:]  # running statistics are averaged, whatever the server's optimizer
        clamp_variances_(self.weights, self.layout)
        stale = self.topology.follow(round, received, votes, self.weights)
        if stale is not None:
            self.optimizer.forget(stale)
        if received.ensemble:
            received.ensemble.teach(self.weights, self.topology.current, round)
        self.cohort.metrics |= self.topology.metrics

    def broadcast(self, round: int) -> ArrayRecord:
        """The payload of the existing global weights for the clients of ``round``.

        Raises:
            Diverged: NaN or infinity in them.
        """
        try:
            return self.downlink.broadcast(self.weights, self.experiment.model, self.topology.compact, round)
        except NonFiniteError as error:
            reason = f"the global weights diverged ({error.layer}); lower the learning rates"
            raise Diverged(f"round {round}: {reason}") from None

    def evaluates(self, round: int) -> bool:
        """Whether the weights of this round are evaluated: every ``eval_every`` rounds, and after the last."""
        return round % self.config.eval_every == 0 or round == self.config.rounds

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """With ``eval_clients``, the same cohort evaluates the new weights on its own held-out samples."""
        asked = self.config.eval_clients and self.evaluates(server_round)
        return self.cohort.messages(MessageType.EVALUATE, server_round, arrays) if asked else []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Mean loss and metrics over the cohort's held-out samples; None when no client evaluated."""
        asked = self.config.eval_clients and self.evaluates(server_round)
        return MetricRecord(dict(self.cohort.scores(replies, server_round))) or None if asked else None
