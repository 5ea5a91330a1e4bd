"""TensorBoard's files: their writer, and for a run that goes on, the cut of what came after its checkpoint."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

# TensorBoard imports TensorFlow where there is one, unless it finds this module: that would take seconds, and a process
# with both TensorFlow and triton may crash.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))

from torch.utils.tensorboard import SummaryWriter  # noqa: E402

from fedsparse.files import sync  # noqa: E402

EVENTS = "events.out.tfevents.*"

__all__ = ["SummaryWriter", "cut_events", "event_sizes"]


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
