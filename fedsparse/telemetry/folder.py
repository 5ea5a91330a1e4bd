"""Run folders and result files."""

import io
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import nn


class OutputError(OSError):
    """A folder or file of results cannot be written; the message is one line."""


def create_run_folder(logdir: str, name: str) -> Path:
    """Make ``<logdir>/<time>-<name>``, with a number behind the name where a run of the same second has that folder.

    Raises:
        OutputError: the folder cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    attempt = 1
    while True:
        folder = Path(logdir) / (f"{stamp}-{name}" if attempt == 1 else f"{stamp}-{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if not folder.is_dir():
                raise OutputError(f"logdir = {logdir}: cannot make a folder there: {error.strerror}") from None
            attempt += 1


def check_writable(logdir: str, outfile: str) -> None:
    """Find out before a run whether its results can be written after it.

    Raises:
        OutputError: they cannot; names the setting and the reason.
    """
    try:
        Path(logdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file is there" if isinstance(error, FileExistsError) else error.strerror
        raise OutputError(f"logdir = {logdir}: cannot make this folder: {reason}") from None
    folders = {f"logdir = {logdir}": Path(logdir)}
    if outfile:
        folders[f"outfile = {outfile}"] = Path(outfile).parent
    for setting, path in folders.items():
        if not path.is_dir():
            raise OutputError(f"{setting}: the folder {path} does not exist")
        if not os.access(path, os.W_OK):
            raise OutputError(f"{setting}: the folder {path} is not writable")
    if outfile and Path(outfile).exists() and not Path(outfile).is_file():
        raise OutputError(f"outfile = {outfile}: is no regular file; name one, or a new one")
    try:  # because some folders have the right permissions and still take no new file
        for path in folders.values():
            TemporaryFile(dir=path).close()
    except OSError as error:
        raise OutputError(f"cannot make a file in {path}: {error.strerror}") from None


def save_model(module: nn.Module, path: Path) -> None:
    """Write the state dict, in the format of ``torch.save``.

    Raises:
        OSError: the file cannot be written. (``torch.save`` itself would raise RuntimeError for a full disk.)
    """
    content = io.BytesIO()
    torch.save(module.state_dict(), content)
    try:
        path.write_bytes(content.getbuffer())
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, content: Any) -> None:
    """Replace the file as a whole, so that a reader never sees half of it."""
    path = path.resolve()  # so that a symbolic link stays, and the file behind it is replaced
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    part.replace(path)
