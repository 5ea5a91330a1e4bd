"""Checkpoints on disk: everything that decides the future of a run, as safetensors and JSON, never pickled.

A checkpoint folder holds, for each checkpoint of a round R:

    R.json                  the manifest: round, settings, and the other files, each with its checksum
    server-R.safetensors    the server's state
    part-R-0.safetensors    what is new since the last checkpoint: measured rounds, and the states of some clients

The manifest is written last, so that a checkpoint without one does not exist. The newest part with a client has the
client's state, so that a checkpoint costs what was touched. When the parts hold twice as many states as there are
clients, the next checkpoint writes all clients and starts a new list of parts.

The last two checkpoints are kept. When a file of the newer one is damaged, the older one is taken.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedsparse.errors import RunFailed
from fedsparse.files import replaced

State = dict[str, Any]
"""Tensors, bytes, numbers, strings and None by name, in nested dicts and lists."""

KEPT = 2
CLIENTS_OF_PART, BYTES_OF_PART = 2000, 2**26
"""A part is full with so many clients or bytes, because a part is put together in memory."""
TENSOR, BYTES, NUMBER = "$tensor", "$bytes", "$number"  # keys in JSON, each for what JSON does not have
FORMAT = "fedsparse-checkpoint/2"


class Saved(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        round: the last round that is in it.
        config: the settings of the run.
        server: the server's state.
        rows: the measurements of every round.
        clients: the state of each client that the run has touched.
    """

    round: int
    config: dict[str, Any]
    server: State
    rows: list[State]
    clients: dict[int, State]


class Checkpoints:
    """The checkpoints in a folder.

    Attributes:
        rounds: of the checkpoints that are kept, ascending.
        saved_rows: how many measured rounds are in the parts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rounds: list[int] = []
        self.saved_rows = 0
        self._parts: list[list[Any]] = []  # of the last checkpoint: each part's name, checksum and number of clients
        self._whole = 0  # how many clients the parts held when they were written anew
        self._files: dict[int, set[str]] = {}  # round -> the files of its checkpoint

    def wants_all(self, changed: int) -> bool:
        """Whether the next checkpoint should hold all clients, because the parts would hold too many old states.

        Args:
            changed: how many clients have a new state.
        """
        held = sum(clients for _, _, clients in self._parts)
        return not self._parts or held - self._whole + changed > self._whole

    def write(
        self, round: int, config: Mapping[str, Any], server: State, rows: list[State],
        clients: Iterable[tuple[int, State]], *, all_clients: bool,
    ) -> None:  # fmt: skip
        """Write the checkpoint of a round, and remove the oldest beyond the last two.

        Args:
            rows: the measurements since the last checkpoint; with ``all_clients``, of every round.
            clients: the clients that changed since the last checkpoint; with ``all_clients``, every client.

        Raises:
            OSError: it cannot be written; the checkpoints before it are still there.
            TypeError: a state has something else than tensors, bytes, numbers and strings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        parts: list[list[Any]] = [] if all_clients else list(self._parts)
        for number, (state, count) in enumerate(_in_parts(rows, clients)):
            name = f"part-{round}-{number}.safetensors"
            parts.append([name, write_state(self.folder / name, state), count])
        whole = sum(count for _, _, count in parts) if all_clients else self._whole
        name = f"server-{round}.safetensors"
        files = [[name, write_state(self.folder / name, server)], *parts]
        content = {"format": FORMAT, "round": round, "config": dict(config), "files": files, "whole": whole}
        text = json.dumps(content)
        with replaced(self._manifest(round), private=True) as file:
            file.write_text(json.dumps({"checksum": _hash(text), "content": text}))
        self._adopt(round, files, whole)
        self.saved_rows = len(rows) + (0 if all_clients else self.saved_rows)
        self._remove_others()

    def load(self, tell: Callable[[str], None]) -> Saved | None:
        """The newest checkpoint without damage; None when there is no checkpoint. Later ones are removed.

        Args:
            tell: is given a line for each damaged checkpoint.

        Raises:
            RunFailed: there are checkpoints, and all are damaged.
        """
        found = sorted((int(file.stem) for file in self.folder.glob("*.json") if file.stem.isdecimal()), reverse=True)
        whole: dict[int, dict[str, Any]] = {}
        for round in found:
            try:
                whole[round] = self._checked(round)
            except (OSError, ValueError, KeyError, TypeError) as error:
                tell(f"the checkpoint of round {round} is damaged ({error}), so an older one is taken")
        if found and not whole:
            raise RunFailed(f"no checkpoint in {self.folder} is without damage")
        if not whole:
            return None
        for round in sorted(whole):
            self._adopt(round, whole[round]["files"], whole[round]["whole"])
        self._remove_others()
        content = whole[self.rounds[-1]]
        server, *parts = [read_state(self.folder / name) for name, *_ in content["files"]]
        rows = [row for part in parts for row in part["rows"]]
        clients = {int(client): state for part in parts for client, state in part["clients"].items()}
        self.saved_rows = len(rows)
        return Saved(self.rounds[-1], content["config"], server, rows, clients)

    def _manifest(self, round: int) -> Path:
        return self.folder / f"{round}.json"

    def _checked(self, round: int) -> dict[str, Any]:
        """The content of a manifest, after a look at the checksums of all its files."""
        manifest = json.loads(self._manifest(round).read_text(encoding="utf-8"))
        if _hash(manifest["content"]) != manifest["checksum"]:
            raise ValueError(f"{round}.json has a wrong checksum")
        content: dict[str, Any] = json.loads(manifest["content"])
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, and this version reads {FORMAT}")
        for name, checksum, *_ in content["files"]:
            if checksum_of(self.folder / name) != checksum:
                raise ValueError(f"{name} has a wrong checksum")
        return content

    def _adopt(self, round: int, files: list[list[Any]], whole: int) -> None:
        self._parts, self._whole = files[1:], whole
        self._files[round] = {name for name, *_ in files} | {self._manifest(round).name}
        self.rounds = [*(r for r in self.rounds if r < round), round][-KEPT:]

    def _remove_others(self) -> None:
        """Remove files of no kept checkpoint: of older ones, of damaged ones, and of one that was never finished."""
        kept = {name for round in self.rounds for name in self._files[round]}
        for file in self.folder.iterdir():
            if file.is_file() and file.name not in kept and file.suffix in (".json", ".safetensors", ".part"):
                file.unlink(missing_ok=True)


def _in_parts(rows: list[State], clients: Iterable[tuple[int, State]]) -> Iterator[tuple[State, int]]:
    """States of one file each, with their number of clients; the first has the rows."""
    part: State = {"rows": rows, "clients": {}}
    size = 0
    for client, state in clients:
        part["clients"][str(client)] = state
        size += size_of(state)
        if len(part["clients"]) == CLIENTS_OF_PART or size > BYTES_OF_PART:
            yield part, len(part["clients"])
            part, size = {"rows": [], "clients": {}}, 0
    if part["rows"] or part["clients"]:
        yield part, len(part["clients"])


def size_of(state: Any) -> int:
    """About how many bytes a state takes in memory: those of its tensors and bytes."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(size_of, state.values()))
    return len(state) if isinstance(state, bytes) else 0


def write_state(path: Path, state: State) -> str:
    """Write a state as safetensors, with its numbers and strings as JSON in the metadata; returns the checksum.

    Raises:
        OSError: the file cannot be written.
        TypeError: the state has something else than tensors, bytes, numbers and strings.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_to_tree(state, "", tensors))
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    for name, tensor in tensors.items():
        if places[tensor.untyped_storage().data_ptr()] > 1:
            tensors[name] = tensor.clone()  # because safetensors refuses tensors that share memory
    with replaced(path, private=True) as file:
        try:
            save_file(tensors, file, {"state": tree})
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from None
        return checksum_of(file)


def read_state(path: Path) -> State:
    """The state in a file of ``write_state``."""
    with safe_open(path, "pt") as file:
        state: State = _from_tree(json.loads(file.metadata()["state"]), file.get_tensor)
    return state


def checksum_of(path: Path) -> str:
    """A hash of a file's content, in hexadecimal."""
    checksum = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(2**24):
            checksum.update(block)
    return checksum.hexdigest()


def _hash(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())


def _to_tree(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold, with the names of tensors in place of tensors and bytes, which go to ``tensors``."""
    if isinstance(value, Mapping):
        return {key: _to_tree(item, f"{name}.{key}" if name else str(key), tensors) for key, item in value.items()}
    if isinstance(value, Tensor | bytes):
        kind = TENSOR if isinstance(value, Tensor) else BYTES
        name += f"#{len(tensors)}" * (name in tensors)
        tensors[name] = value.detach().cpu().contiguous() if isinstance(value, Tensor) else _as_tensor(value)
        return {kind: name}
    if isinstance(value, list | tuple):
        return [_to_tree(item, f"{name}.{number}", tensors) for number, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {NUMBER: str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"the state {name} is a {type(value).__name__}, which a checkpoint cannot hold")


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _from_tree(tree: Any, tensor: Callable[[str], Tensor]) -> Any:
    if isinstance(tree, list):
        return [_from_tree(item, tensor) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {TENSOR}:
        return tensor(tree[TENSOR])
    if tree.keys() == {BYTES}:
        return tensor(tree[BYTES]).numpy().tobytes()
    if tree.keys() == {NUMBER}:
        return float(tree[NUMBER])
    return {key: _from_tree(item, tensor) for key, item in tree.items()}
