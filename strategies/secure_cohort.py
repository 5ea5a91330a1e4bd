"""A cohort whose updates the server sees as one sum: secure aggregation, see ``fedsparse.privacy.secure_sum``.

Before the train messages the clients agree on masks, in two exchanges; after the uploads a third one unmasks the sum.
A client that drops out before its upload is not in the sum. Where too few clients are left, no update of the cohort
counts, and each returns to its client's residual.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsparse.compression import PayloadError, UpdateCodec
from fedsparse.compression.wire import binding
from fedsparse.engine.records import array_bytes, plain_array
from fedsparse.privacy import masked_payload
from fedsparse.privacy.one_support import check_one_support
from fedsparse.privacy.secure_server import Server
from fedsparse.privacy.secure_sum import SecureSumError, Session
from fedsparse.strategies.acceptance import Refused
from fedsparse.strategies.cohort import Cohort
from fedsparse.strategies.nodes import Nodes
from fedsparse.strategies.replies import Upload
from fedsparse.strategies.server_model import ServerModel


class SecureCohort(Cohort):
    """The sampled clients of the present round, and the secure sum of their updates."""

    def __init__(self, models: Mapping[str, ServerModel], nodes: Nodes) -> None:
        super().__init__(models, nodes)
        experiment = self.model.experiment
        check_one_support("secure-aggregation = true", experiment.config, experiment.layout, experiment.method)
        self._fixed, self._attempt = experiment.fixed_sum, 0

    def _choose(self, chosen: list[int], grid: Grid) -> None:
        super()._choose(chosen, grid)
        self._grid, self._attempt = grid, self._attempt + 1

    def messages(self, kind: str, round: int) -> list[Message]:
        """As of any cohort. Train messages bring each client the others' shares."""
        if kind == MessageType.TRAIN:
            with self.tally.timer("secure"):
                self._begin(round)
        return super().messages(kind, round)

    def _extras(self, kind: str, client: int) -> dict[str, ArrayRecord]:
        return {"secure": _record(self._sum.shares_for(client))} if kind == MessageType.TRAIN else {}

    def _task(self, round: int, model: ServerModel) -> ConfigRecord:
        task = super()._task(round, model)
        task["session"], task["threshold"] = self._session.name, self._session.threshold
        return task

    def _begin(self, round: int) -> None:
        """The exchanges of keys and of shares, after which the cohort has those clients that took part in both."""
        config, layout = self.config, self.model.topology.compact.layout
        self._session = Session(f"{self.model.gate.run}/{round}/{self._attempt}", config.secure_threshold)
        codec = UpdateCodec(layout, **config.compression())
        self._form = self._fixed.form(codec, round, config.support_seed(round))
        self._size = sum(segment.values.size for segment in self._form.segments)
        self._sum = Server(self._session, self._size)
        for client in self._members.values():
            self._count_asked(client, round)
        self._keep(self._exchange("secure_keys", round, b"", self._sum.take_keys))
        self._keep(self._exchange("secure_shares", round, self._sum.table, self._sum.take_shares))

    def _exchange(self, phase: str, round: int, sent: bytes, take: Callable[[int, bytes], None]) -> list[int]:
        """Send the same to every client, and take the answers; returns the clients whose answer was taken."""
        content = RecordDict({"secure": _record(sent), "task": self._task(round, self.model)})
        kind = f"{MessageType.QUERY}.{phase}"
        messages = [Message(content, dst_node_id=node, message_type=kind) for node in self._members]
        self._sending(messages)
        taken = []
        replies = self._grid.send_and_receive(messages, timeout=self.config.round_timeout)
        for client, reply in self._usable(replies):
            self.tally.measures.count("comm/uplink_bytes", array_bytes(reply.content))
            try:
                take(client, _answer(reply))
                taken.append(client)
            except PayloadError as error:
                self.tally.refuse(client, error)
        return taken

    def _keep(self, left: list[int]) -> None:
        """Go on with these clients, or with none when they are too few."""
        try:
            self._session.check_enough(len(left))
        except SecureSumError as error:
            for client in left:
                self.tally.fail(client, str(error))
            left = []
        self._members = {node: client for node, client in self._members.items() if client in left}

    def uploads(self, answers: Iterable[tuple[int, Message]], round: int) -> Iterator[tuple[ServerModel, Upload]]:
        """The sum of the answers, as one upload; none when it cannot be unmasked."""
        taken = {}
        for client, reply in answers:
            read = partial(self._words, client, reply, round)
            if checked := self._checked(client, reply, read):
                self._sum.take_words(client, checked.content)
                taken[client] = checked
        self._keep(list(taken))
        if not self._members:
            return
        with self.tally.timer("secure"):
            helpers = self._exchange("secure_reveal", round, self._sum.survivors_table, self._sum.take_answer)
            try:
                words = self._sum.total()
            except SecureSumError as error:
                self._barred.update(error.dealers)
                for client in error.dealers:
                    self.tally.refuse(client, error)
                for client in helpers:
                    if client not in error.dealers:
                        self.tally.fail(client, f"its update is lost: {error}")
                return
        for client, checked in taken.items():
            self._accept(client, checked)
        samples = sum(checked.samples for checked in taken.values())
        mean = self.model.topology.compact.scatter(self._fixed.mean(self._form, words, samples))
        yield self.model, Upload(mean, None, None, samples, {}, clients=len(taken))

    def _words(self, client: int, reply: Message, round: int) -> np.ndarray:
        """The masked update in a reply to a train message."""
        arrays = reply.content.get("arrays")
        if not isinstance(arrays, ArrayRecord) or set(arrays) != {"masked"}:
            raise Refused("content", "it has no masked update, or something beside that")
        layout, bits = self.model.topology.compact.layout, self._fixed.word_bits
        bound = binding(self.model.gate.run, client)
        return masked_payload.decode(arrays["masked"].data, bits, self._size, layout, round, bound)


def _record(data: bytes) -> ArrayRecord:
    return ArrayRecord({"secure": plain_array(data)})


def _answer(reply: Message) -> bytes:
    """What a client answers in an exchange."""
    arrays = reply.content.get("arrays")
    if len(reply.content) != 1 or not isinstance(arrays, ArrayRecord) or set(arrays) != {"secure"}:
        raise Refused("content", "it has no answer, or something beside that")
    return arrays["secure"].data
