"""Calls the ClientApp once for each message, or once for several clients that train together."""

import logging
import traceback
from collections.abc import Callable, Sequence

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode

from fedsparse.errors import cause
from fedsparse.plugins import load

log = logging.getLogger("fedsparse")

App = Callable[[Message, Context], Message]


class Apps:
    """A ClientApp, and the function that trains clients together: see ``LocalGrid``."""

    def __init__(self, app: App, together: Callable[..., App] | None = None) -> None:
        self._app, self._together = app, together

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """A reply to each message; an error reply with the traceback if the app raises."""
        app = self._app
        if len(messages) > 1 and self._together:
            try:
                app = self._together(messages, contexts)
            except Exception as error:  # called one by one, only the client with the fault fails
                log.warning("training together failed, so these clients train one by one: %s", cause(error))
        return [_answer(app, message, context) for message, context in zip(messages, contexts, strict=True)]


def load_apps(client_app: str, together: str = "") -> Apps:
    """The apps that two references name.

    Raises:
        PluginError: one of them cannot be loaded.
    """
    return Apps(load(client_app), load(together) if together else None)


def _answer(app: App, message: Message, context: Context) -> Message:
    try:
        return app(message, context)
    except Exception:
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, traceback.format_exc()), reply_to=message)
