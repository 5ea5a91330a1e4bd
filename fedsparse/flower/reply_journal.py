"""Every reply that an app's server got, on disk, so that a stopped run can go on.

A Flower app's server cannot be stopped in the middle and put back: its state is local variables of the app's own code.
But where all randomness is seeded, the same replies bring it to the same state. So a run that goes on runs the server
from its beginning, answers the messages that were answered before from the journal, and calls clients for the others.
Each message's hash is compared, so that a server that does something else is found at once.

For each batch of messages the journal's folder has

    R.safetensors          each message's id and hash, and its reply
    states-R.safetensors   the new states in the Contexts of the batch's clients, for as long as they are the newest
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flwr.app import Error, Message, RecordDict
from safetensors import SafetensorError

from fedsparse.checkpoint import State, read_state, size_of, write_state
from fedsparse.engine.records import content_hash
from fedsparse.engine.saved_contexts import from_plain, to_plain
from fedsparse.errors import RunFailed

log = logging.getLogger("fedsparse")

ENDING = ".safetensors"


class Answer(NamedTuple):
    """What a message got before: its reply, unless none came in time; and its share of the batch's seconds."""

    reply: Message | None
    seconds: float


class ReplyJournal:
    """The journal in a folder.

    Args:
        folder: its files' folder; there may be none yet.
        limit: bytes of replies and states; beyond them the journal is removed, because the disk may be small.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self._ahead = sorted(int(file.stem) for file in folder.glob(f"*{ENDING}") if file.stem.isdecimal())
        self._last = self._ahead[-1] if self._ahead else 0
        self._found: dict[str, State] = {}  # message id -> its entry, of the files that were read
        self._newest: dict[int, int] = {}  # node -> the batch whose file has its newest state
        self._held: set[int] = set()  # the batches that have a file of states
        self._hashes: dict[int, str] = {}  # node -> of its newest state, because most evaluations change none

    def states(self) -> dict[int, RecordDict]:
        """The newest state of every node that has one, of a run that goes on."""
        newest: dict[int, RecordDict] = {}
        for batch in range(1, self._last + 1):
            if (file := self._states_file(batch)).is_file():
                states = {int(node): from_plain(state) for node, state in _read(file).items()}
                newest |= states
                self._newest |= dict.fromkeys(states, batch)
                self._held.add(batch)
        return newest

    def answered(self, messages: Sequence[Message]) -> dict[str, Answer]:
        """The answers that these messages got before, by id; new messages are not in it.

        Raises:
            RunFailed: the server asks for something else than before, or a file is damaged.
        """
        found = {message.metadata.message_id: self._answer_to(message) for message in messages}
        return {name: answer for name, answer in found.items() if answer}

    def _answer_to(self, message: Message) -> Answer | None:
        name = message.metadata.message_id
        while name not in self._found and self._ahead:
            self._found |= _read(self.folder / f"{self._ahead.pop(0)}{ENDING}")
        entry = self._found.pop(name, None)
        if entry is None and not self._found:
            return None
        if entry is None or entry["hash"] != _hash(message):
            raise RunFailed(
                f"message {name} is not the one before the stop: the app has changed, or its server draws random "
                "numbers without a seed, so this run cannot go on"
            )
        return Answer(_reply(message, entry["reply"]), entry["seconds"])

    def add(
        self, messages: Sequence[Message], replies: Sequence[Message], states: Mapping[int, RecordDict], seconds: float
    ) -> None:
        """Write a batch that clients have answered; a failure is a warning, because the run can go on."""
        if not self.limit:
            return
        by_id = {reply.metadata.reply_to_message_id: reply for reply in replies}
        entries: State = {}
        for name, message in ((message.metadata.message_id, message) for message in messages):
            entries[name] = {
                "hash": _hash(message), "reply": _plain(by_id.get(name)), "seconds": seconds / len(messages)
            }  # fmt: skip
        hashes = {node: content_hash(state) for node, state in states.items() if state}
        kept = {str(n): to_plain(states[n]) for n, digest in hashes.items() if self._hashes.get(n) != digest}
        self._hashes |= hashes
        try:
            if self._bytes() + size_of(entries) + size_of(kept) > self.limit:
                raise OSError(f"it would take more than --journal-gb {self.limit / 1e9:g}")
            self._write(self._last + 1, entries, kept)
        except OSError as error:
            log.warning("this run will not be able to go on after a stop: its journal is removed, because %s", error)
            self.remove()

    def remove(self) -> None:
        """Remove the files, and write no more."""
        self.limit = 0.0
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, batch: int, entries: State, states: State) -> None:
        self.folder.mkdir(exist_ok=True)
        if states:
            write_state(self._states_file(batch), states)
        write_state(self.folder / f"{batch}{ENDING}", entries)  # last, because only this makes the batch exist
        self._last = batch
        self._newest |= {int(node): batch for node in states}
        for old in self._held - set(self._newest.values()):
            self._states_file(old).unlink()
        self._held = set(self._newest.values())

    def _states_file(self, batch: int) -> Path:
        return self.folder / f"states-{batch}{ENDING}"

    def _bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob(f"*{ENDING}"))


def _read(file: Path) -> State:
    try:
        return read_state(file)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunFailed(f"{file} is damaged, so this run cannot go on: {error}") from None


def _hash(message: Message) -> str:
    return f"{message.metadata.message_type} {content_hash(message.content)}"


def _plain(reply: Message | None) -> State | None:
    """A reply for a file; None when there was none in time."""
    if reply is None:
        return None
    if reply.has_error():
        return {"code": reply.error.code, "reason": reply.error.reason}
    return {"content": to_plain(reply.content)}


def _reply(message: Message, plain: State | None) -> Message | None:
    if plain is None:
        return None
    if "content" in plain:
        return Message(from_plain(plain["content"]), reply_to=message)
    return Message(Error(plain["code"], plain["reason"]), reply_to=message)
