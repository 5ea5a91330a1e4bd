"""The client's line: a mod that makes the reply of any Flower ClientApp small."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedsparse.config.communication_settings import CommunicationSettings
from fedsparse.config.effects import without_mistakes
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.flower.names import ACCEPTED, RECORD

if TYPE_CHECKING:
    from fedsparse.flower.upload import Uploads


class CompressMod:
    """Replaces the arrays of a reply by one payload, which ``CompressedStrategy`` on the server decodes.

    The payload has the change of each array of floating-point numbers since the message. What does not fit travels as
    it is: whole numbers, arrays that are not in the message or have another shape there, and those of ``dense``.
    Running statistics (``running_*``) travel dense in the payload. A message from a server without
    ``CompressedStrategy`` is left alone.

    It must come first in the list of mods, because the others need the arrays themselves.

    Args:
        compressor: a compressor or preset, as for ``fedsparse run --compressor``.
        seed: of all random draws: see ``fedsparse.seeds``. A draw's client is the node's ``partition-id`` where the
            node has one, and else Flower's node id, which is another one in each federation.
        dense: names of arrays that travel as they are; ``*`` stands for anything, as in ``"head.*"``.
        state_folder: a folder on the client's machine for the state (the residual, and what else a compressor keeps)
            where that is large. By default it is in ``context.state``, which travels with every message on Flower's
            simulation, and ends with a SuperNode. Files of a run are removed 30 days after its last round.
        parts: further settings by their names in ``fedsparse run --help``, such as ``density=0.01``.

    Raises:
        ConfigError: a setting is unknown, wrong, or without effect beside the others; one line.
    """

    def __init__(
        self,
        compressor: str = "hggtopk",
        *,
        seed: int = 0,
        dense: Sequence[str] = (),
        state_folder: str | Path | None = None,
        **parts: Any,
    ) -> None:
        settings = {"compressor": compressor, **parts}
        for name in settings:
            if name not in CommunicationSettings.model_fields or name.startswith("downlink_"):
                raise ConfigError(f"CompressMod has no setting {name!r}")
        given = Given({name.replace("_", "-"): value for name, value in settings.items()} | {"seed": seed})
        given.typed = frozenset(given)
        self.config = without_mistakes(given)
        self.dense = [dense] if isinstance(dense, str) else list(dense)
        self.state_folder = Path(state_folder).expanduser().absolute() if state_folder else None
        self._uploads: Uploads | None = None

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Call the app with a message without the server's record, and compress its reply."""
        content = message.content if message.has_content() else RecordDict()
        task = content.get(RECORD)
        if not isinstance(task, ConfigRecord):
            return call_next(message, context)
        from fedsparse.flower.shared_arrays import SharedArrays  # here, because they import torch
        from fedsparse.flower.upload import Uploads

        self._uploads = self._uploads or Uploads(self.config, self.dense, self.state_folder)
        message.content = self._uploads.received(content, task, message, context)
        received = SharedArrays(message.content.array_records)
        try:
            reply = call_next(message, context)
        finally:
            message.content = content  # because the server's process may be this one
        if reply.has_content() and ACCEPTED in task:
            reply.content = self._uploads.compressed(reply.content, received, task, message, context)
        return reply
