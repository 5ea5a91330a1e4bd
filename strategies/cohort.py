"""A round's cohort: who is sampled, what each client is sent, who answers, and what the server knows of each."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedsparse.compression import PayloadError
from fedsparse.engine import LocalGrid
from fedsparse.engine.records import array_bytes
from fedsparse.engine.step_records import read_steps
from fedsparse.sampling import sampled, sampled_again
from fedsparse.strategies.ledger import Ledger
from fedsparse.strategies.nodes import Nodes
from fedsparse.strategies.replies import Checked, Content, Upload
from fedsparse.strategies.round_tally import RoundTally
from fedsparse.strategies.server_model import ServerModel

log = logging.getLogger("fedsparse")


class Cohort:
    """The sampled clients of the present round.

    Args:
        models: that the clients train, by name; the first is the one that results are about.
        nodes: Flower's node id of every partition id.

    Attributes:
        state_folder: the folder of the clients' state files; empty when clients keep their state in their Context.
        kept_rounds: the rounds of the checkpoints that are kept; clients keep their state files of those rounds.
        told: further entries of every message's task record.
        ledger: what the server knows of each client.
        tally: what the present round brought.
        is_hopeless: whether every client of the last cohort raised an exception, which other clients would raise too.
    """

    def __init__(self, models: Mapping[str, ServerModel], nodes: Nodes) -> None:
        self.models, self.nodes = models, nodes
        self.config = self.model.config
        self.state_folder = ""
        self.kept_rounds: list[int] = []
        self.told: dict[str, float | str] = {}
        self.is_hopeless = False
        self._barred = set[int]()  # clients that spoil the work of others, so that this round asks them no more
        self._settings = ConfigRecord(self.config.flat())
        self.ledger = Ledger(lambda client: self.of(client).topology.start)
        self._members: dict[int, int] = {}  # node id -> partition id
        self._asked: list[Metadata] = []  # of the last messages; Flower fills in their ids when it sends them
        self._asked_at = 0.0
        self.tally = RoundTally(self.model.experiment, 0)

    @property
    def model(self) -> ServerModel:
        """The network that results are about."""
        return next(iter(self.models.values()))

    def of(self, client: int) -> ServerModel:
        """The network that a client trains."""
        return self.models[self.config.model_of(client)]

    def sample(self, round: int, grid: Grid) -> None:
        """Begin a round: choose its clients at random."""
        self._settle_norms()
        self.tally, self._barred = RoundTally(self.model.experiment, round), set()
        with self.tally.timer("sample"):
            # An experiment must be repeatable, but clients of a deployment must not know whom a secret draw has chosen.
            secret = self.config.noise_by_server and not isinstance(grid, LocalGrid)
            self._choose(sampled(self.config, round, secret, self.model.experiment.participants), grid)

    def sample_again(self, round: int, attempt: int, grid: Grid) -> None:
        """Choose another cohort of the same round, of clients that were not accepted; first those that were not asked.

        Args:
            attempt: 2 for the second cohort of the round.
        """
        with self.tally.timer("sample"):
            asked = self.ledger.asked_in(round)
            missing = [c for c in asked - self._barred if self.ledger[c].accepted_round < round]
            among = self.model.experiment.participants
            self._choose(sampled_again(self.config, round, attempt, asked, missing, among), grid)

    def _choose(self, chosen: list[int], grid: Grid) -> None:
        moved = self.nodes.update(grid)
        self.ledger.sampled({*chosen, *moved})
        for client in moved:  # a client at a new node has lost its Context
            self.ledger[client].lost()
        self._members = {self.nodes.ids[client]: client for client in chosen}

    @property
    def clients(self) -> list[int]:
        """The partition ids of the last clients that were asked."""
        return sorted(self._members.values())

    def settle(self) -> None:
        """Say that the round is whole."""
        self._settle_norms()
        self.ledger.settle()

    def _settle_norms(self) -> None:
        for model in self.models.values():
            model.gate.limits.settle()

    def messages(self, kind: str, round: int) -> list[Message]:
        """One message a client: the weights or their changes, all settings, the last round accepted from the client,
        and the mask unless the client holds it."""
        messages, tasks = [], {name: self._task(round, model) for name, model in self.models.items()}
        for node, client in self._members.items():
            known, model, task = self.ledger[client], self.of(client), tasks[self.config.model_of(client)].copy()
            task["accepted-round"] = known.accepted_round
            arrays = model.downlink.arrays_for(known.weights_round, model.sent, model.experiment.part(client))
            content = RecordDict({"arrays": arrays, "config": self._settings, "task": task})
            content.update(self._extras(kind, client))
            if model.frozen and (frozen := model.frozen.arrays_for(known.frozen)):
                content["frozen"] = frozen
            if mask := model.topology.mask_for(known.topology):
                content["topology"] = mask
                known.topology = None  # until the client answers, because it may fail before or after it saves the mask
            messages.append(Message(content, dst_node_id=node, message_type=kind))
            self._count_asked(client, round)
            known.sent_round, known.sent_bytes = model.downlink.round, array_bytes(content)
        self._sending(messages)
        return messages

    def _extras(self, kind: str, client: int) -> dict[str, ArrayRecord]:
        """Further records of the message to a client."""
        return {}

    def _task(self, round: int, model: ServerModel) -> ConfigRecord:
        """What every message of a round about this network says beside the settings."""
        task = ConfigRecord({"round": round, "state-folder": self.state_folder, "run": model.gate.run})
        for name, value in {**model.told, **self.told}.items():
            task[name] = value
        if self.state_folder:
            task["kept-rounds"] = list(self.kept_rounds)
        return task

    def _count_asked(self, client: int, round: int) -> None:
        self.tally.asked += self.ledger[client].asked_round != round
        self.ledger[client].asked_round = round

    def _sending(self, messages: list[Message]) -> None:
        """Remember the messages that are about to be sent, and count their bytes."""
        self._asked, self._asked_at = [message.metadata for message in messages], time.monotonic()
        sent = sum(array_bytes(message.content) for message in messages)
        self.tally.count("comm/messages", len(messages))
        self.tally.count("comm/downlink_bytes", float(sent))

    def answers(self, replies: Iterable[Message]) -> list[tuple[int, Message]]:
        """Each client that answered without an error, with its reply, by ascending partition id.

        That order is fixed because floating-point addition depends on it. The ledger is brought up to date.
        """
        usable = self._usable(replies)
        for client, _ in usable:
            known = self.ledger[client]
            model = self.of(client)
            known.topology, known.weights_round = model.topology.current.hash, known.sent_round
            known.frozen = model.frozen.edition if model.frozen else 0
        for model in self.models.values():
            model.gate.begin([(client, reply) for client, reply in usable if self.of(client) is model])
        return usable

    def _usable(self, replies: Iterable[Message]) -> list[tuple[int, Message]]:
        """The answers of the cohort's clients to the messages that were last sent; the failures are noted."""
        # When a node is gone, the SuperLink sends the reply itself, with its own node id as the source.
        asked = {metadata.message_id: metadata.dst_node_id for metadata in self._asked}
        answered: dict[int | None, Message] = {}
        for message in replies:
            sender: int | None = message.metadata.src_node_id
            if sender not in self._members:
                sender = asked.get(message.metadata.reply_to_message_id) if message.has_error() else None
            if sender in self._members and sender in answered:
                self.tally.count("refused/twice", 1)
            else:
                answered[sender] = message
        waited = time.monotonic() - self._asked_at > self.config.round_timeout
        usable, raised = [], 0
        for client, node in sorted((client, node) for node, client in self._members.items()):
            reply, known = answered.get(node), self.ledger[client]
            if reply is None:
                limit = f" within round-timeout = {self.config.round_timeout:g} s" if waited else ": its node has left"
                self.tally.fail(client, f"no reply{limit}")
            elif reply.has_error():
                known.lost()
                raised += reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
                self.tally.fail(client, reply.error.reason or "")
            elif not reply.has_content():
                self.tally.fail(client, "its reply is empty")
            else:
                usable.append((client, reply))
        if self._members:  # without any, an earlier exchange of the cohort has lost all of them
            self.is_hopeless = raised == len(self._members)
        return usable

    def uploads(self, answers: Iterable[tuple[int, Message]], round: int) -> Iterator[tuple[ServerModel, Upload]]:
        """What the answers to a round's train messages bring, checked and decoded, each with the network that it is
        about; failures are noted."""
        for client, reply in answers:
            if upload := self.upload(client, reply, round):
                yield self.of(client), upload

    def upload(self, client: int, reply: Message, round: int) -> Upload | None:
        """What one client's answer brings; None, and a failure noted, when it is refused."""
        model = self.of(client)
        if checked := self._checked(client, reply, lambda: model.gate.update(client, reply, round, model.weights)):
            self.tally.has_norm(client, model.gate.limits.present[-1].weights)
            self._accept(client, checked)
        return checked and Upload(*checked.content, checked.samples, checked.measured)

    def _checked(self, client: int, reply: Message, read: Callable[[], Content]) -> Checked[Content] | None:
        """One client's reply to a train message; None, and a failure noted, when it is refused or comes too late.

        Args:
            read: checks and decodes what was uploaded.
        """
        received = array_bytes(reply.content)
        self.tally.measures.count("comm/uplink_bytes", received)
        known = self.ledger[client]
        try:
            samples, measured = self.of(client).gate.metrics(client, reply, least=1)
            steps = read_steps(reply.content) if self.config.log_interval else None
            with self.tally.timer("decode"):
                content = read()
        except PayloadError as error:
            self.tally.refuse(client, error)
            return None
        if not self.tally.in_time(client, known, received, measured):
            return None
        return Checked(content, samples, measured, steps)

    def _accept(self, client: int, checked: Checked) -> None:
        """Acknowledge a client's update, and count what the client measured."""
        self.ledger[client].accepted_round = self.tally.round
        self.tally.accept(client, checked)

    def scores(self, replies: Iterable[Message]) -> dict[str, float]:
        """Mean loss and metrics over the cohort's held-out samples; empty when no client has any."""
        sums: dict[str, float] = defaultdict(float)
        total = 0
        for client, reply in self.answers(replies):
            try:
                # Of one sample a client holds out none.
                samples, measured = self.of(client).gate.metrics(client, reply, least=0)
            except PayloadError as error:
                self.tally.refuse(client, error)
                continue
            for tag, value in measured.items():
                if tag.startswith("eval/client_"):
                    sums[tag] += samples * value
            total += samples
        means = {tag: value / total for tag, value in sums.items()} if total else {}
        self.tally.score(means)
        return means
