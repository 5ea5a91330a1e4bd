"""FedAvg over compressed updates (McMahan et al. 2017, algorithm 1), and the round that the other strategies share.

    configure_train    sample a cohort, broadcast the global weights
    aggregate_train    order the replies by partition id, decode one at a time, add, average, server_step

A strategy with another server optimizer overrides ``server_step``, and ``forget`` if it remembers anything. Which
weights exist is another matter, that of ``strategies.server_topology``.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, Metadata, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedsparse.compression import ClientState, NonFiniteError, PayloadError, UpdateCodec
from fedsparse.config import Config
from fedsparse.engine import RunFailed
from fedsparse.engine.records import array_bytes, payload_array
from fedsparse.seeds import derive_seed
from fedsparse.telemetry.timers import StageTimer
from strategies.downlink import Downlink
from strategies.nodes import Nodes
from strategies.replies import read_metrics
from strategies.server_topology import Replies, ServerTopology

log = logging.getLogger("fedsparse")


class RoundFailed(RunFailed):
    """No client's update of a round could be used; the message tells the first client's reason."""


class FedAvg(Strategy):
    """w <- w + server_lr * sum_i n_i update_i / sum_i n_i, with n_i the samples of client i.

    Args:
        config: the settings; clients get them with every message.
        topology: which weights exist, and the layout of the model; a payload made for another is refused.
        weights: initial global vector, float32 on the CPU, shape ``(layout.size,)``; changed in place.
        nodes: Flower's node id of every partition id.

    Attributes:
        state_folder: where clients keep what they remember; empty for their Context.
        weights: the present global vector.
        metrics: what the present round measured so far, under telemetry's tags.
        failures: the present round's failed clients, each with its reason.
    """

    usual_lr = 1.0
    """What ``server_lr = auto`` means."""

    def __init__(self, config: Config, topology: ServerTopology, weights: Tensor, nodes: Sequence[int]) -> None:
        self.config, self.topology, self.weights = config, topology, weights
        self.nodes = Nodes(nodes)
        self.layout = topology.layout
        self.server_lr = self.usual_lr if config.server_lr == "auto" else config.server_lr
        self.state_folder = ""
        self.network = config.network()
        self.downlink = Downlink(config)
        self._sent: dict[int, int] = {}  # bytes that each client of the cohort received
        self.settings = ConfigRecord(config.flat())
        topology.topology.apply_(weights)
        self.timer = StageTimer()
        self.metrics: dict[str, float] = {}
        self.failures: list[str] = []
        self._accepted: dict[int, int] = defaultdict(int)  # partition id -> last round accepted from it
        self._cohort: dict[int, int] = {}  # node id -> partition id, of the present round
        self._broadcast = ArrayRecord()
        self._asked: list[Metadata] = []  # of the last messages; Flower gives them their ids when they leave
        self._asked_at = 0.0

    def summary(self) -> None:
        """Flower prints this before it starts; the run's own output says the same."""

    def server_step(self, update: Tensor) -> Tensor:
        """The step that the server takes for the averaged update, both float32 ``(layout.parameters,)``."""
        return update.mul_(self.server_lr)

    def forget(self, stale: Tensor) -> None:
        """Clear what ``server_step`` remembers of some weights: bool, shape ``(layout.parameters,)``."""

    def broadcast(self, round: int) -> ArrayRecord:
        """The global weights, those that exist, as clients of ``round`` receive them."""
        compact = self.topology.compact
        try:
            weights = self.downlink.advance(compact.gather(self.weights), compact.layout, round)
            codec = UpdateCodec(compact.layout, compressor="none")
            payload, _ = codec.encode(weights, ClientState(), round=round, seed=0)
        except NonFiniteError as error:
            raise RoundFailed(
                f"round {round}: the global weights diverged ({error.layer}); lower the learning rates"
            ) from None
        return ArrayRecord({"weights": payload_array(payload, compact.layout)})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a sampled client: the weights, all settings, and the last round accepted from that client."""
        self.timer, self.metrics, self.failures = StageTimer(), {}, []
        self._broadcast = arrays
        with self.timer("sample"):
            rng = np.random.default_rng(derive_seed(self.config.seed, "sample", round=server_round))
            cohort = np.sort(rng.choice(self.config.clients, self.config.clients_per_round, replace=False)).tolist()
            for client in self.nodes.update(grid):  # its Context stayed behind
                self.topology.forget(client)
                self.downlink.forget(client)
            self._cohort = {self.nodes.ids[client]: client for client in cohort}
        return self._messages(MessageType.TRAIN, server_round, arrays)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The same cohort evaluates the new weights on its own held-out samples, when that is asked for."""
        return self._messages(MessageType.EVALUATE, server_round, arrays) if self._evaluating(server_round) else []

    def evaluates(self, round: int) -> bool:
        """Whether the weights of this round are evaluated: every ``eval_every`` rounds, and after the last."""
        return round % self.config.eval_every == 0 or round == self.config.rounds

    def _evaluating(self, round: int) -> bool:
        return self.config.eval_clients and self.evaluates(round)

    def _messages(self, kind: str, round: int, arrays: ArrayRecord) -> list[Message]:
        messages, fixed = [], ConfigRecord({"round": round, "state-folder": self.state_folder, **self.topology.name})
        self._sent = {}
        for node, client in self._cohort.items():
            task = fixed.copy()
            task["accepted-round"] = self._accepted[client]
            received = self.downlink.arrays_for(client, arrays)
            content = RecordDict({"arrays": received, "config": self.settings, "task": task})
            if mask := self.topology.mask_for(client):
                content["topology"] = mask
            messages.append(Message(content, dst_node_id=node, message_type=kind))
            self._sent[client] = array_bytes(content)
        self._asked, self._asked_at = [message.metadata for message in messages], time.monotonic()
        self.metrics["comm/downlink_bytes"] = self.metrics.get("comm/downlink_bytes", 0.0) + sum(self._sent.values())
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the updates in the order of partition ids, and take the server's step.

        Raises:
            RoundFailed: not one reply carried a usable update, for other reasons than the simulated deadline.
        """
        self._broadcast.clear()  # Flower's loop holds it on, as large as the model, though all have answered
        total = Replies(self.layout, self.topology.topology)
        sums: dict[str, float] = defaultdict(float)
        told: Counter[str] = Counter()  # clients, by what they measured
        late = 0
        for client, reply in self._usable(replies, server_round):
            received = array_bytes(reply.content)
            sums["comm/uplink_bytes"] += received
            try:
                samples, measured = read_metrics(reply)
                with self.timer("decode"):
                    upload = self.topology.read(reply.content, server_round)
            except PayloadError as error:
                self._fail(client, server_round, f"its reply is refused: {error}")
                continue
            if reason := self._late(client, measured, received):
                self._fail(client, server_round, reason)
                late += 1
                continue
            with self.timer("aggregate"):
                total.add(upload, samples)
            self._accepted[client] = server_round
            sums["comm/clients"] += 1
            told.update(measured.keys())
            for tag, value in measured.items():
                sums[tag] += value * (samples if tag.startswith("train/") else 1.0)
        if not total.samples and late < len(self._cohort):
            raise RoundFailed(f"round {server_round}: all {len(self._cohort)} clients failed; {self.failures[0]}")
        if kept := total.samples:  # of a round for which all came too late, the weights stay as they were
            with self.timer("aggregate"):
                self._apply(total, server_round)
        del total  # the broadcast below is as large
        self._collect(sums, kept, told)
        return self.broadcast(server_round + 1), MetricRecord(dict(self.metrics))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Mean loss and accuracy over the cohort's held-out samples; None when nobody evaluated."""
        sums: dict[str, float] = defaultdict(float)
        for client, reply in self._usable(replies, server_round) if self._evaluating(server_round) else ():
            try:
                count, measured = read_metrics(reply, least=0)  # a client with one sample holds out none
            except PayloadError as error:
                self._fail(client, server_round, f"its reply is refused: {error}")
                continue
            for tag in ("eval/client_loss", "eval/client_accuracy"):
                sums[tag] += count * measured.get(tag, 0.0)
            sums["samples"] += count
        samples = sums.pop("samples", 0.0)
        if not samples:
            return None
        means = {tag: value / samples for tag, value in sums.items()}
        self.metrics |= means
        return MetricRecord(dict(means))

    def _usable(self, replies: Iterable[Message], round: int) -> Iterator[tuple[int, Message]]:
        """The replies without an error, by ascending partition id: floating-point addition has one order."""
        # For a node that it lost, the SuperLink answers in its own name.
        asked = {metadata.message_id: metadata.dst_node_id for metadata in self._asked}
        answered: dict[int | None, Message] = {}
        for message in replies:
            sender = message.metadata.src_node_id
            known = sender if sender in self._cohort else asked.get(message.metadata.reply_to_message_id)
            answered[known] = message
        waited = time.monotonic() - self._asked_at > self.config.round_timeout
        for client, node in sorted((client, node) for node, client in self._cohort.items()):
            reply = answered.pop(node, None)
            if reply is None:
                limit = f" within round-timeout = {self.config.round_timeout:g} s" if waited else ": its node has left"
                self._fail(client, round, f"no reply{limit}")
            elif reply.has_error():
                self.downlink.forget(client)
                self.topology.forget(client)
                self._fail(client, round, (reply.error.reason or "").strip() or "no reason given")
            elif not reply.has_content():
                self._fail(client, round, "its reply is empty")
            else:
                self.topology.answered(client)
                self.downlink.confirm(client)
                yield client, reply

    def _fail(self, client: int, round: int, reason: str) -> None:
        """Note a failure; the log gets its last line, which of a traceback is the error itself."""
        last = reason.splitlines()[-1]
        self.failures.append(f"client {client}: {last}")
        self.metrics["comm/failures"] = len(self.failures)
        log.warning("round %d: client %d failed: %s", round, client, last)
        if reason != last:
            log.info("%s", reason)

    def _late(self, client: int, measured: Mapping[str, float], uplink: int) -> str:
        """Advance the simulated clock by this client; the reason when its update would have missed the deadline."""
        if not self.network and not self.config.compute_seconds:
            return ""
        compute = self.config.compute_seconds or sum(s for tag, s in measured.items() if tag.startswith("time/"))
        seconds = self.network.seconds(client, downlink=self._sent[client], uplink=uplink, compute=compute)
        deadline = self.config.round_deadline
        slowest = max(self.metrics.get("time/simulated", 0.0), seconds)
        self.metrics["time/simulated"] = min(slowest, deadline) if deadline else slowest
        late = deadline and seconds > deadline
        return f"late on the simulated network: {seconds:.1f} s, round-deadline = {deadline:g} s" if late else ""

    def _apply(self, replies: Replies, round: int) -> None:
        """Take the server's step, then let the topology follow."""
        votes = self.topology.votes(round, replies, self.weights)
        mean, split = replies.mean.update(), self.layout.parameters
        self.weights[:split] += self.server_step(mean[:split])
        self.weights[split:] += mean[split:]  # running statistics are averaged, whatever the server's optimizer
        stale = self.topology.finish(round, replies, votes, self.weights)
        if stale is not None:
            self.forget(stale)
        self.metrics |= self.topology.metrics

    def _collect(self, sums: dict[str, float], samples: float, told: Counter[str]) -> None:
        """A round's numbers: means over samples of train/*, means over clients of compress/*, sums of the rest.

        Those clients are the ``told``: one that sends an earlier payload again has compressed nothing.
        """
        for tag, value in sums.items():
            many = samples if tag.startswith("train/") else told[tag] if tag.startswith("compress/") else 1.0
            self.metrics[tag] = self.metrics.get(tag, 0.0) + value / many
