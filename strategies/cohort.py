"""A round's cohort: who is sampled, what each client is sent, who answers, and what the server knows of each."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.serverapp import Grid

from fedsparse.compression import PayloadError
from fedsparse.engine.records import array_bytes
from fedsparse.engine.step_records import Steps, read_steps
from fedsparse.errors import reason
from fedsparse.experiment import Experiment
from fedsparse.network import SimulatedClock
from fedsparse.seeds import derive_seed
from fedsparse.telemetry.tags import measured_by_clients
from fedsparse.telemetry.timers import StageTimer
from strategies.downlink import Downlink
from strategies.nodes import Nodes
from strategies.replies import Measures, Upload, read_metrics
from strategies.server_topology import ServerTopology

log = logging.getLogger("fedsparse")


@dataclass
class Known:
    """What the server knows of one client: its line in the ledger.

    Attributes:
        topology: the hash of the mask that the client holds; None when the server cannot know it.
        accepted_round: the last round whose payload was accepted from it; 0 for none.
        weights_round: the round of the global weights that it surely holds; 0 when the server cannot know it.
        sent_round: the round of the weights in the last message to it.
        sent_bytes: how many bytes the arrays in that message had.
    """

    topology: int | None
    accepted_round: int = 0
    weights_round: int = 0
    sent_round: int = 0
    sent_bytes: int = 0

    def lost(self) -> None:
        """Forget what the client holds, because it failed or moved to a new node."""
        self.topology, self.weights_round = None, 0


class Cohort:
    """The sampled clients of the present round.

    Args:
        experiment: the settings.
        nodes: Flower's node id of every partition id.
        topology: says which weights exist, and decodes uploads.
        downlink: sends whole weights or compressed changes.

    Attributes:
        state_folder: the folder of the clients' state files; empty when clients keep their state in their Context.
        kept_rounds: the rounds of the checkpoints that are kept; clients keep their state files of those rounds.
        changed: the clients that were sampled since the last checkpoint.
        metrics: what the present round measured so far, under telemetry's tags.
        failures: the present round's failed clients, each with its reason.
        timer: the stage timer of the present round.
        clock: the simulated clock of the present round.
        steps: the step log of each client whose upload counts, by partition id; empty without ``log-interval``.
        late: how many clients came too late on the simulated network in this round.
    """

    def __init__(self, experiment: Experiment, nodes: Nodes, topology: ServerTopology, downlink: Downlink) -> None:
        self.config, self.nodes, self.topology, self.downlink = experiment.config, nodes, topology, downlink
        self.state_folder = ""
        self.kept_rounds: list[int] = []
        self.changed = set[int]()
        self.metrics: dict[str, float] = {}
        self.failures: list[str] = []
        self.timer = StageTimer()
        self.steps: dict[int, Steps] = {}
        self.late = 0
        self._task, self._tags = experiment.task, measured_by_clients(experiment.task.metrics)
        self._settings = ConfigRecord(self.config.flat())
        self._ledger: dict[int, Known] = defaultdict(lambda: Known(topology.start))  # by partition id
        self._settled: dict[int, Known] = {}  # lines of the ledger at the last `settle`, of clients sampled since
        self._members: dict[int, int] = {}  # node id -> partition id
        self._asked: list[Metadata] = []  # of the last messages; Flower fills in their ids when it sends them
        self._asked_at = 0.0
        self._measures = Measures()
        self.clock = self._new_clock()

    def __len__(self) -> int:
        return len(self._members)

    def sample(self, round: int, grid: Grid) -> None:
        """Begin a round: choose its clients at random."""
        self.timer, self.metrics, self.failures, self.steps, self.late = StageTimer(), {}, [], {}, 0
        self._measures, self.clock = Measures(), self._new_clock()
        with self.timer("sample"):
            rng = np.random.default_rng(derive_seed(self.config.seed, "sample", round=round))
            chosen = np.sort(rng.choice(self.config.clients, self.config.clients_per_round, replace=False)).tolist()
            moved = self.nodes.update(grid)
            for client in {*chosen, *moved}:
                self._settled.setdefault(client, replace(self._ledger[client]))
            for client in moved:  # a client at a new node has lost its Context
                self._ledger[client].lost()
            self._members = {self.nodes.ids[client]: client for client in chosen}

    def settle(self) -> None:
        """Say that the round is whole: what ``known`` returns is of this moment, until the next call."""
        self.changed |= self._settled.keys()
        self._settled.clear()

    def known(self, client: int) -> list[int | None]:
        """The ledger's line of a client at the last ``settle``."""
        return list(astuple(self._settled.get(client) or self._ledger[client]))

    @property
    def met(self) -> list[int]:
        """The clients that were ever sampled, ascending."""
        return sorted(self._ledger)

    def restore(self, client: int, known: list[int | None], *, keeps_state: bool) -> None:
        """Put a line of ``known`` into the ledger.

        Args:
            keeps_state: whether the client has the state that it had then; else it holds no topology and no weights.
        """
        self._ledger[client] = Known(*known)  # type: ignore[arg-type]
        if not keeps_state:
            self._ledger[client].lost()

    def _new_clock(self) -> SimulatedClock:
        return SimulatedClock(self.config.network(), self.config.compute_seconds, self.config.round_deadline)

    def messages(self, kind: str, round: int, weights: ArrayRecord) -> list[Message]:
        """One message a client: the weights or their changes, all settings, the last round accepted from the client,
        and the mask unless the client holds it."""
        messages, sent = [], 0
        fixed = ConfigRecord({"round": round, "state-folder": self.state_folder, **self.topology.named})
        if self.state_folder:
            fixed["kept-rounds"] = list(self.kept_rounds)
        for node, client in self._members.items():
            known, task = self._ledger[client], fixed.copy()
            task["accepted-round"] = known.accepted_round
            arrays = self.downlink.arrays_for(known.weights_round, weights)
            content = RecordDict({"arrays": arrays, "config": self._settings, "task": task})
            if mask := self.topology.mask_for(known.topology):
                content["topology"] = mask
                known.topology = None  # until the client answers, because it may fail before or after it saves the mask
            messages.append(Message(content, dst_node_id=node, message_type=kind))
            known.sent_round, known.sent_bytes = self.downlink.round, array_bytes(content)
            sent += known.sent_bytes
        self._asked, self._asked_at = [message.metadata for message in messages], time.monotonic()
        self.metrics["comm/messages"] = self.metrics.get("comm/messages", 0) + len(messages)
        self.metrics["comm/downlink_bytes"] = self.metrics.get("comm/downlink_bytes", 0.0) + sent
        return messages

    def answers(self, replies: Iterable[Message], round: int) -> list[tuple[int, Message]]:
        """Each client that answered without an error, with its reply, by ascending partition id.

        That order is fixed because floating-point addition depends on it. The ledger is brought up to date.
        """
        # When a node is gone, the SuperLink sends the reply itself, with its own node id as the source.
        asked = {metadata.message_id: metadata.dst_node_id for metadata in self._asked}
        answered: dict[int | None, Message] = {}
        for message in replies:
            sender = message.metadata.src_node_id
            known_sender = sender if sender in self._members else asked.get(message.metadata.reply_to_message_id)
            answered[known_sender] = message
        waited = time.monotonic() - self._asked_at > self.config.round_timeout
        usable = []
        for client, node in sorted((client, node) for node, client in self._members.items()):
            reply, known = answered.get(node), self._ledger[client]
            if reply is None:
                limit = f" within round-timeout = {self.config.round_timeout:g} s" if waited else ": its node has left"
                self._fail(client, round, f"no reply{limit}")
            elif reply.has_error():
                known.lost()
                self._fail(client, round, reply.error.reason or "")
            elif not reply.has_content():
                self._fail(client, round, "its reply is empty")
            else:
                known.topology, known.weights_round = self.topology.current.hash, known.sent_round
                usable.append((client, reply))
        return usable

    def upload(self, client: int, reply: Message, round: int) -> Upload | None:
        """One client's reply to a train message, checked and decoded; None, and a failure noted, when it is refused."""
        received = array_bytes(reply.content)
        self._measures.count("comm/uplink_bytes", received)
        known = self._ledger[client]
        try:
            samples, measured = read_metrics(reply, self._tags)
            steps = read_steps(reply.content) if self.config.log_interval else None
            with self.timer("decode"):
                upload = Upload(*self.topology.read(reply.content, round), samples, measured)
        except PayloadError as error:
            self._fail(client, round, f"its reply is refused: {error}")
            return None
        seconds = sum(value for tag, value in measured.items() if tag.startswith("time/"))
        if late := self.clock.add(client, downlink=known.sent_bytes, uplink=received, measured=seconds):
            self._fail(client, round, late)
            self.late += 1
            return None
        if self.clock.network:
            links = self.clock.network.seconds(client, downlink=known.sent_bytes, uplink=received, compute=0.0)
            self._measures.count("time/transfer", links)
        if steps:
            self.steps[client] = steps
        known.accepted_round = round
        self._measures.count("comm/clients", 1)
        self._measures.add(measured, samples)
        return upload

    def close(self, samples: int) -> None:
        """End a train phase: add the means of what its clients measured on ``samples`` samples to ``metrics``."""
        self.metrics |= self._derived(self._measures.means(samples))
        if self.clock.seconds is not None:
            self.metrics["time/simulated"] = self.clock.seconds

    def scores(self, replies: Iterable[Message], round: int) -> dict[str, float]:
        """Mean loss and metrics over the cohort's held-out samples; empty when no client has any."""
        sums: dict[str, float] = defaultdict(float)
        total = 0
        for client, reply in self.answers(replies, round):
            try:
                samples, measured = read_metrics(reply, self._tags, least=0)  # a client with one sample holds out none
            except PayloadError as error:
                self._fail(client, round, f"its reply is refused: {error}")
                continue
            for tag, value in measured.items():
                if tag.startswith("eval/client_"):
                    sums[tag] += samples * value
            total += samples
        means = {tag: value / total for tag, value in sums.items()} if total else {}
        self.metrics |= self._derived(means)
        return means

    def _derived(self, means: dict[str, float]) -> dict[str, float]:
        """The means, with what follows from the mean loss; a mean of perplexities is not the perplexity of the mean."""
        for phase in ("train/", "eval/client_"):
            if f"{phase}loss" in means:
                measured = self._task.derived(means[f"{phase}loss"])
                means |= {f"{phase}{name}": measured[name] for name in self._task.metrics if name in measured}
        return means

    def _fail(self, client: int, round: int, told: str) -> None:
        """Note a failure by its reason; the log file gets all that was told of it."""
        why = reason(told)
        self.failures.append(f"client {client}: {why}")
        self.metrics["comm/failures"] = len(self.failures)
        log.warning("round %d: client %d failed: %s", round, client, why)
        if told.strip() not in ("", why):
            log.info("%s", told.strip())
