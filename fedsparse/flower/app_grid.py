"""The grid that somebody's Flower app runs on: LocalGrid with seeds, a log of the messages, a journal of replies."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedsparse.engine.apps import App, Apps
from fedsparse.engine.local_grid import LocalGrid
from fedsparse.engine.pool import with_content
from fedsparse.engine.records import independent
from fedsparse.flower.app_imports import load_component
from fedsparse.flower.message_log import MessageLog
from fedsparse.flower.randomness import own_draws
from fedsparse.flower.reply_journal import ReplyJournal
from fedsparse.seeds import derive_seed

Mod = Callable[[Message, Context, App], Message]
"""Called in the place of a ClientApp, with the app."""


class Enough(BaseException):
    """Ends an app's run before its server would, as if the run were complete.

    It is no Exception, so that a server which survives errors does not survive this.
    """


class AppGrid(LocalGrid):
    """LocalGrid for an app that knows nothing of it.

    Args:
        client_app: Flower's reference to the ClientApp; its folder is on ``sys.path``.
        nodes: how many there are.
        seed: of all randomness.
        mod: comes before the app's own mods.
        options: more arguments of ``LocalGrid``.
    """

    def __init__(self, client_app: str, nodes: int, seed: int, *, mod: Mod | None = None, **options: Any) -> None:
        super().__init__(partial(load_client_app, client_app, seed, mod), nodes, own_gpu=True, **options)

    def write_into(self, log: MessageLog, journal: ReplyJournal) -> None:
        """Count every message, and keep every reply; with the journal of a run that goes on, go on from there."""
        self._log, self._journal = log, journal
        for node, state in journal.states().items():
            self.restore(node, state)

    def deliver(self, batch: list[Message], timeout: float | None) -> list[Message]:
        """As LocalGrid does, but each client has the whole ``timeout`` for itself, as if all worked at once."""
        before = self._journal.answered(batch)
        fresh = [message for message in batch if message.metadata.message_id not in before]
        began = time.perf_counter()
        answered = super().deliver(fresh, None) if fresh else []
        seconds = time.perf_counter() - began
        self.settle()
        nodes = {reply.metadata.src_node_id for reply in answered if not reply.has_error()}
        if timeout is not None:
            due = {message.metadata.message_id: message.metadata.created_at + timeout for message in fresh}
            answered = [
                reply for reply in answered
                if reply.has_error() or reply.metadata.created_at <= due[reply.metadata.reply_to_message_id]
            ]  # fmt: skip
        if fresh:
            self._journal.add(fresh, answered, {node: self.state_of(node) for node in nodes}, seconds)
        replies = {reply.metadata.reply_to_message_id: reply for reply in answered}
        replies |= {name: answer.reply for name, answer in before.items() if answer.reply}
        in_order = [replies[m.metadata.message_id] for m in batch if m.metadata.message_id in replies]
        seconds += sum(answer.seconds for answer in before.values())
        self._log.add(batch, in_order, seconds, again=not fresh)
        return in_order


def load_client_app(reference: str, seed: int, mod: Mod | None) -> Apps:
    """Somebody's ClientApp behind a mod, called with randomness of its own and records that no other client shares.

    Raises:
        PluginError: it cannot be loaded.
    """
    with own_draws(derive_seed(seed, "model")):  # because a module may draw while it is imported, in every process
        app = load_component(reference, ClientApp)
        modified: App = (lambda message, context: mod(message, context, app)) if mod else app
        return Apps(isolated(modified, seed))


def isolated(app: App, seed: int) -> App:
    """The app, called as if each message had come over a network, and with a seed that only the message decides.

    The reply's time is as if the client had begun when the message was made.
    """

    def answer(message: Message, context: Context) -> Message:
        node, _, number = message.metadata.message_id.partition(".")
        context.state = independent(context.state)
        began = time.perf_counter()
        with own_draws(derive_seed(seed, "train", round=int(number), partition_id=int(node))):
            reply = app(with_content(message, independent(message.content)), context)
        vars(reply.metadata)["_created_at"] = message.metadata.created_at + time.perf_counter() - began
        return with_content(reply, independent(reply.content)) if reply.has_content() else reply

    return answer
