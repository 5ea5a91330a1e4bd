"""Calling the client's app: one message after the other, or for several clients at once."""

import importlib
import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode

log = logging.getLogger("fedsparse")

App = Callable[[Message, Context], Message]


class Apps:
    """The app that ``client_app`` names, and the function ``together`` names, if any; see ``LocalGrid``."""

    def __init__(self, client_app: str, together: str = "") -> None:
        self._app: App = load(client_app)
        self._together: Callable[..., App] | None = load(together) if together else None

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """A reply to each message; where the app raises, an error reply that carries the traceback."""
        app = self._app
        if len(messages) > 1 and self._together:
            try:
                app = self._together(messages, contexts)
            except Exception as error:  # one by one, a fault shows itself at the client that has it
                log.warning("these clients train one by one, since together they failed: %s", error)
        return [_answer(app, message, context) for message, context in zip(messages, contexts, strict=True)]


def load(reference: str) -> Any:
    """The object that ``"package.module:attribute"`` names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _answer(app: App, message: Message, context: Context) -> Message:
    try:
        return app(message, context)
    except Exception:
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, traceback.format_exc()), reply_to=message)
