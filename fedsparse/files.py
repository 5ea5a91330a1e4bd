"""Writes files so that a crash, a full disk or a power cut leaves the old file or the new one, never half a file."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedsparse.errors import RunFailed


@contextmanager
def replaced(path: Path, *, synced: bool = True, private: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to. When the block ends, that file takes the place of ``path``.

    When the block raises, the file beside is removed. A link at ``path`` stays; the file that it points to is replaced.

    Args:
        path: the file to write.
        synced: wait until the disk has the file and its new name.
        private: only this user may read the file.
    """
    path = path.resolve()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # each process has its own
    try:
        if private:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        yield part
        if synced:
            sync(part)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):  # the folder may be gone
            part.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context in which no other process can lock the folder. The lock ends with this process, however it ends.

    Raises:
        RunFailed: another process has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunFailed(f"the run in {folder} is still running") from None
    except OSError:  # some file systems have no locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process has locked the folder. This locks the folder for a moment itself."""
    try:
        with locked(folder):
            return False
    except RunFailed:
        return True


def sync(path: Path) -> None:
    """Wait until the disk has the content of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
