"""TensorBoard's files of a run that goes on: what the run had written after its checkpoint is cut off."""

from collections.abc import Mapping
from pathlib import Path

from fedsparse.files import sync

EVENTS = "events.out.tfevents.*"


def event_sizes(folder: Path) -> dict[str, int]:
    """The size in bytes of each of TensorBoard's files, once the disk has them."""
    files = sorted(folder.glob(EVENTS))
    for file in files:
        sync(file)
    return {file.name: file.stat().st_size for file in files}


def cut_events(folder: Path, sizes: Mapping[str, int]) -> None:
    """Cut the files to the sizes that they had at the checkpoint, and remove later files."""
    for file in folder.glob(EVENTS):
        if file.name not in sizes:
            file.unlink()
        elif file.stat().st_size > sizes[file.name]:
            with file.open("r+b") as stream:
                stream.truncate(sizes[file.name])
