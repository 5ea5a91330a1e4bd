"""A round of federated averaging over compressed updates (McMahan et al. 2017, algorithm 1).

    configure_train    sample a cohort, send it the weights
    aggregate_train    check and decode the uploads one at a time, add them up, take the server's step,
                       let the topology follow, send the new weights

The aggregator adds up the uploads, the server optimizer computes the step, and the topology says which weights exist.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsparse.aggregation.residuals import ResidualMean
from fedsparse.checkpoint import State
from fedsparse.engine import LocalGrid
from fedsparse.errors import Diverged
from fedsparse.plugins import blamed
from fedsparse.privacy.client_level import ClientLevel
from fedsparse.strategies.attack import Attack
from fedsparse.strategies.cohort import Cohort
from fedsparse.strategies.layer_details import layer_histograms
from fedsparse.strategies.nodes import Nodes
from fedsparse.strategies.quorum import further_cohorts, is_void
from fedsparse.strategies.received import Received
from fedsparse.strategies.replies import Replies
from fedsparse.strategies.reshape import reshaped
from fedsparse.strategies.round_aggregator import round_aggregator
from fedsparse.strategies.secure_cohort import SecureCohort
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.uplink_share import UplinkShare
from fedsparse.telemetry.histograms import Histogram

log = logging.getLogger("fedsparse")


class FedAvg(Strategy):
    """w <- w + step(sum_i n_i update_i / sum_i n_i), with n_i the samples of client i.

    Args:
        model: with the initial weights; the one that results are about.
        nodes: Flower's node id of every partition id.
        others: further networks, which other clients hold.

    Attributes:
        models: all of these by name, with the present weights; other objects after a change of ranks.
        cohort: the clients of the present round, and what they measured.
        privacy: the guarantee of differential privacy; None without one.
        uplink: the account of the uplink budget; None without one.
        details: histograms of the mean update of the last round that was evaluated, for the trackers.
        has_details: whether the strategy makes these histograms.
        stepping: whether the server has begun a step whose round is not whole yet. Meanwhile there is nothing to save.
    """

    def __init__(self, model: ServerModel, nodes: Sequence[int], others: Iterable[ServerModel] = ()) -> None:
        self.models, self.config = {each.name: each for each in (model, *others)}, model.config
        self.cohort = (SecureCohort if self.config.secure_aggregation else Cohort)(self.models, Nodes(nodes))
        self.attack = Attack(self.cohort)
        self.privacy = ClientLevel(self.config, model.layout, model.topology.method) if self.config.is_private else None
        if self.privacy:
            self.cohort.told["dp-noise"] = self.privacy.accountant.noise
        self.uplink = UplinkShare(self.config) if self.config.uplink_budget else None
        self.stepping, self.has_details = False, False
        self.details: dict[str, Histogram] = {}

    @property
    def model(self) -> ServerModel:
        """The network that results are about."""
        return self.cohort.model

    @property
    def vectors(self) -> list[np.ndarray]:
        """The weights of all networks, and those beside adapters that changed, float32, of one dimension each."""
        return [vector for model in self.models.values() for vector in model.vectors]

    def state_dict(self) -> State:
        """What decides the next rounds, but for the ledger."""
        return {
            "models": {name: model.state_dict() for name, model in self.models.items()},
            "uplink": self.uplink.state_dict() if self.uplink else {},
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned; see ``ServerModel.load_state_dict``."""
        for name, model in self.models.items():
            model.load_state_dict(state["models"][name])
        if self.uplink:
            self.uplink.load_state_dict(state["uplink"])

    @property
    def notes(self) -> State:
        """What the run's result says of it beside its measurements."""
        return self.attack.claim() | ({"privacy": self.privacy.claim()} if self.privacy else {})

    def summary(self) -> None:
        """Print nothing, because the run prints its own header; Flower calls this before it starts."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort; one message a client."""
        self._grid = grid
        if self.uplink:
            self.cohort.told |= self.uplink.told(server_round)
        self.cohort.sample(server_round, grid)
        return self.cohort.messages(MessageType.TRAIN, server_round)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add up the uploads in the order of partition ids, and take the server's step.

        With fewer than ``min-replies`` usable updates, the round goes on with another cohort, whose updates are added.

        Raises:
            RunFailed: there are too few usable updates, unless all clients only missed the simulated deadline.
            Diverged: the clients' updates or their mean are not finite; the weights are those of the round before.
        """
        for model in self.models.values():
            model.release()
        secret = not isinstance(self._grid, LocalGrid)  # in a deployment, clients know the seed
        aggregator = partial(round_aggregator, round=server_round, privacy=self.privacy, secret=secret)
        cohort, received = self.cohort, Received(self.models, aggregator)
        self._add(received, replies, server_round)
        for attempt in further_cohorts(cohort, received, server_round):
            self._add(received, self._ask_again(attempt, server_round), server_round)
        self.stepping, samples = True, received.samples
        if is_void(cohort, received):
            log.warning("round %d: %d usable replies; the weights stay", server_round, received.count)
        else:
            with cohort.tally.timer("aggregate"):
                self._step(received, server_round)
        if self.privacy:
            cohort.tally.metrics |= self.privacy.measured(server_round)
        del received  # the broadcast below is as large
        cohort.tally.close(samples)
        if self.uplink:
            self.uplink.spend(server_round, cohort.tally.metrics)
        return self.broadcast(server_round + 1), MetricRecord(dict(cohort.tally.metrics))

    def _add(self, received: Received, replies: Iterable[Message], round: int) -> None:
        """Check, decode and add up a cohort's replies."""
        answers = self.cohort.answers(replies)
        self.attack.poison(answers, round)
        for model, upload in self.cohort.uploads(answers, round):
            with self.cohort.tally.timer("aggregate"), blamed("aggregator", self.config.aggregator):
                received.add(model, upload)

    def _ask_again(self, attempt: int, round: int) -> Iterable[Message]:
        """The replies of another cohort of this round."""
        self.cohort.sample_again(round, attempt, self._grid)
        self.broadcast(round)
        messages = self.cohort.messages(MessageType.TRAIN, round)
        return self._grid.send_and_receive(messages, timeout=self.config.round_timeout)

    def _step(self, received: Received, round: int) -> None:
        """The server's step for every network that has uploads; then the models of the cohort teach all networks."""
        for name, model in self.models.items():
            if not is_void(self.cohort, received.of[name]):
                self._average(model, received.of[name], round)
        if received.ensemble:
            received.ensemble.teach(self.models.values(), round)
        for name, model in self.models.items():
            self.models[name] = reshaped(model, round)
        self.cohort.tally.metrics |= self.model.topology.metrics

    def _average(self, model: ServerModel, replies: Replies, round: int) -> None:
        """The server's step for one network; then its topology follows."""
        topology = model.topology
        with blamed("aggregator", self.config.aggregator):
            update, votes = replies.result(model.weights, votes=topology.clients_choose(round))
        is_finite = bool(update.isfinite().all())  # finite updates may add up to infinity
        if is_finite and isinstance(replies.aggregator, ResidualMean):
            is_finite = model.add_to_frozen(replies.aggregator.residuals())
        if not is_finite:
            raise Diverged(f"round {round}: the mean update is not finite; {self.cohort.tally.longest}")
        model.step(update)
        if self.has_details and self.evaluates(round) and model is self.model:
            self.details = layer_histograms("update", update, topology.current)
        model.follow(round, replies, votes)

    def broadcast(self, round: int) -> ArrayRecord:
        """Make the payloads of the weights for the clients of ``round``; returns that of the first network.

        Raises:
            Diverged: NaN or infinity in weights.
        """
        for model in self.models.values():
            model.broadcast(round)
        return self.model.sent

    def evaluates(self, round: int) -> bool:
        """Whether the weights of this round are evaluated: every ``eval_every`` rounds, and after the last."""
        return round % self.config.eval_every == 0 or round == self.config.rounds

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """With ``eval_clients``, the same cohort evaluates the new weights on its own held-out samples."""
        asked = self.config.eval_clients and self.evaluates(server_round)
        return self.cohort.messages(MessageType.EVALUATE, server_round) if asked else []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Mean loss and metrics over the cohort's held-out samples; None when no client evaluated."""
        asked = self.config.eval_clients and self.evaluates(server_round)
        return MetricRecord(dict(self.cohort.scores(replies))) or None if asked else None
