"""Where clients keep state files, a new one for each round, so that the server can go back to a checkpoint.

``<root>/<client><kind>/<round>.npz`` is the client's state after that round. A client removes the files that the server
cannot go back to any more.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedsparse.files import sync

KINDS = ("", "-weights", "-frozen", "-topology", "-moments")
"""What a client keeps apart: its compressor's state, the weights, frozen weights and topology that it holds, and its
optimizer's moments."""
SECRETS = "-secrets"
"""What a client keeps for secure aggregation until the end of a round. It is in no checkpoint."""


@dataclass(frozen=True)
class StateFiles:
    """The files of one client's state of one kind.

    Attributes:
        folder: of these files alone.
        round: the present round.
        kept: the rounds of the checkpoints that are kept.
    """

    folder: Path
    round: int = 1
    kept: Sequence[int] = ()

    @property
    def next(self) -> Path:
        """The file to write in this round."""
        return self.folder / f"{self.round}.npz"

    def newest(self, until: int | None = None) -> Path | None:
        """The newest file, or the newest up to the end of a round; None when there is none."""
        rounds = [round for round in self._rounds() if until is None or round <= until]
        return self.folder / f"{max(rounds)}.npz" if rounds else None

    def remove_old(self) -> None:
        """Remove what neither this round, nor a stop in the middle of it, nor a checkpoint needs."""
        rounds = self._rounds()
        ends = (self.round, self.round - 1, *self.kept)
        needed = {max((round for round in rounds if round <= end), default=None) for end in ends}
        for round in set(rounds) - needed:
            (self.folder / f"{round}.npz").unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        with suppress(FileNotFoundError):
            return [int(file.stem) for file in self.folder.iterdir() if file.suffix == ".npz" and file.stem.isdecimal()]
        return []


def files_of(root: Path, client: int) -> list[StateFiles]:
    """The files of a client, of every kind."""
    return [StateFiles(root / f"{client}{kind}") for kind in KINDS]


def sync_states(root: Path, client: int, until: int) -> list[str]:
    """Wait until the disk has the client's states at the end of a round; returns their names under ``root``."""
    names = []
    for files in files_of(root, client):
        if file := files.newest(until):
            sync(file)
            sync(file.parent)
            names.append(str(file.relative_to(root)))
    return names


def remove_secrets(root: Path) -> None:
    """Remove what clients kept for a secure sum that did not come to its end; no sum of later rounds needs it."""
    for folder in root.glob(f"*{SECRETS}"):
        shutil.rmtree(folder, ignore_errors=True)


def go_back(root: Path, round: int) -> None:
    """Remove every state after a round, all secrets, and folders without another state."""
    remove_secrets(root)
    for folder in root.iterdir() if root.is_dir() else ():
        for file in folder.iterdir():
            if not file.stem.isdecimal() or int(file.stem) > round:
                file.unlink()
        if not any(folder.iterdir()):
            shutil.rmtree(folder)
