"""What CompressMod makes of a reply: one payload in the place of the arrays that it shares with the message."""

import logging
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import PARTITION_ID_KEY

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.wire import bind, binding
from fedsparse.config import Config
from fedsparse.engine.client_store import load_state, save_state
from fedsparse.engine.records import payload_array
from fedsparse.engine.state_files import StateFiles
from fedsparse.flower.names import ACCEPTED, ARRAYS, PAYLOAD, ROUND
from fedsparse.flower.plain_arrays import is_float, read, record_of
from fedsparse.flower.restored import KIND, restored
from fedsparse.flower.shared_arrays import Part, Place, SharedArrays
from fedsparse.seeds import derive_seed
from fedsparse.vector import Layout

log = logging.getLogger("fedsparse")

KEPT_DAYS = 30
"""A node's states in ``state_folder`` are removed so many days after the node's last round."""


class Uploads:
    """Compresses the replies of one ClientApp.

    Args:
        config: how.
        dense: patterns of the names of arrays that travel as they are.
        state_folder: of state files; None for Contexts.
    """

    def __init__(self, config: Config, dense: Sequence[str], state_folder: Path | None) -> None:
        self.config, self.dense, self.state_folder = config, dense, state_folder
        self._codec: UpdateCodec | None = None
        self._is_warned = False

    def received(self, content: RecordDict, task: ConfigRecord, message: Message, context: Context) -> RecordDict:
        """A message's content as a plain server would send it, without the record for ``CompressMod``.

        Raises:
            MissedChange: see ``restored``.
        """
        if ARRAYS in task:
            content = restored(content, task, context, self._files(KIND, task, message))
        return RecordDict({name: record for name, record in content.items() if record is not task})

    def _files(self, kind: str, task: ConfigRecord, message: Message) -> StateFiles | None:
        if self.state_folder is None:
            return None
        folder = self.state_folder / f"{message.metadata.run_id}-{message.metadata.dst_node_id}{kind}"
        if not folder.exists():
            remove_old_runs(self.state_folder)
        return StateFiles(folder, int(task[ROUND]))  # type: ignore[arg-type]

    def compressed(
        self, content: RecordDict, received: SharedArrays, task: ConfigRecord, message: Message, context: Context
    ) -> RecordDict:
        """A reply's content with a payload in the place of its arrays.

        Raises:
            NonFiniteError: an array has NaN or infinity.
        """
        twins = received.twins(content.array_records)
        changed = self._changed(content, received, twins)
        part = received.part(changed)
        if not part.layout.parameters:
            return content
        payload = self._payload(self._update(changed, received, part), part.layout, task, message, context)
        first = {PAYLOAD: payload_array(payload, part.layout)}
        records: dict[str, Any] = dict(content.items())
        for name, twin in twins.items():
            arrays: dict[str, Array] = records[name]
            left = {key: array for key, array in arrays.items() if (twin, key) not in changed}
            if len(left) < len(arrays):
                records[name], first = record_of(first | left), {}
        return RecordDict(records)

    def _changed(self, content: RecordDict, received: SharedArrays, twins: dict[str, str]) -> dict[Place, Array]:
        """The reply's arrays whose change the payload tells, by their places in the message."""
        changed: dict[Place, Array] = {}
        for name, twin in twins.items():
            arrays: dict[str, Array] = content[name]  # type: ignore[assignment]
            if arrays.keys() != received.records[twin].keys():
                self._warn(f"the reply's record {name!r} has other arrays than the message's, and is not compressed")
                continue
            for key, array in arrays.items():
                base = received.values.get((twin, key))
                is_dense = any(fnmatchcase(key, pattern) for pattern in self.dense)
                if base is not None and is_float(array) and array.shape == base.shape and not is_dense:
                    changed[twin, key] = array
        return changed

    def _warn(self, told: str) -> None:
        if not self._is_warned:
            log.warning("CompressMod: %s", told)
        self._is_warned = True

    def _update(self, changed: dict[Place, Array], received: SharedArrays, part: Part) -> np.ndarray:
        """The changes since the message: float32, shape ``(layout.size,)``."""
        update = np.empty(part.layout.size, np.float32)
        for place, entry in zip(part.places, part.layout.entries, strict=True):
            new, old = read(changed[place]), received.values[place]
            out, wide = update[entry.slice].reshape(entry.shape), np.result_type(new, old, np.float32)
            with np.errstate(over="ignore", invalid="ignore"):  # the codec refuses what is not finite
                np.subtract(new, old, out=out, dtype=wide, casting="same_kind")
        return update

    def _payload(
        self, update: np.ndarray, layout: Layout, task: ConfigRecord, message: Message, context: Context
    ) -> bytes:
        """The payload of an update, bound to this node and run; the node's state advances."""
        round, accepted = int(task[ROUND]), int(task[ACCEPTED])  # type: ignore[arg-type]
        node, run = message.metadata.dst_node_id, message.metadata.run_id
        files = self._files("", task, message)
        codec, state = self._codec_for(layout), load_state(context, files)
        if state.topology and state.topology != layout.fingerprint.to_bytes(8):
            log.warning("CompressMod: the message has other arrays than before; the residual is dropped")
            state = ClientState()
        payload = state.payload
        if state.sent_round != round or not payload:  # else the node has run the same message before
            codec.settle(state, accepted)
            client = int(context.node_config.get(PARTITION_ID_KEY, node))
            seed = derive_seed(self.config.seed, "compress", round=round, partition_id=client)
            payload, _ = codec.encode(update, state, round=round, seed=seed, support=self.config.support_seed(round))
            state.topology = layout.fingerprint.to_bytes(8)  # to notice a state of other arrays
            save_state(context, files, state)
        return bind(payload, binding(str(run), node))

    def _codec_for(self, layout: Layout) -> UpdateCodec:
        if self._codec is None or self._codec.layout != layout:
            self._codec = UpdateCodec(layout, **self.config.compression())
        return self._codec


def remove_old_runs(state_folder: Path) -> None:
    """Remove the states of nodes that have long not written one, because no node knows when its run ends.

    A folder with anything but states is somebody else's, such as ``2024-01`` with pictures.
    """
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for folder in state_folder.glob("*-*"):
        with suppress(FileNotFoundError, NotADirectoryError):  # another node may remove it at the same time
            is_run = re.fullmatch(r"\d+-\d+(-weights)?", folder.name) and folder.stat().st_mtime < oldest
            if is_run and all(re.fullmatch(r"\d+\.npz", file.name) for file in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
