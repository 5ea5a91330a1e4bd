"""Run folders and result files."""

import io
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
import yaml
from torch import nn

from fedsparse.config import Config
from fedsparse.errors import OutputError
from fedsparse.files import replaced
from fedsparse.models.initial import VOCABULARY


def short(name: str) -> str:
    """A setting as a word of a folder's name: a path loses its folders and ending, a reference keeps its object."""
    place, _, attribute = name.rpartition(":")
    return f"{Path(place).stem}.{attribute}" if place else Path(name).stem


def labels(models: Sequence[str]) -> list[str]:
    """A word for each network of a run, in tags and names of folders; a word that was there before gets a number."""
    words = [short(name) for name in models]
    return [f"{word}-{place}" if word in words[:place] else word for place, word in enumerate(words)]


def create_run_folder(logdir: str, name: str) -> Path:
    """Make ``<logdir>/<time>-<name>``, unique among runs that start in the same second.

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
    """Check before a run that its results can be written.

    Raises:
        OutputError: names the setting and the reason.
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
    try:  # because os.access may call a folder writable that takes no new file
        for path in folders.values():
            TemporaryFile(dir=path).close()
    except OSError as error:
        raise OutputError(f"cannot make a file in {path}: {error.strerror}") from None


def save_model(module: nn.Module, path: Path, vocabulary: str) -> None:
    """Write the state dict by way of memory, because ``torch.save`` raises a RuntimeError when the disk is full.

    Args:
        vocabulary: ``Dataset.vocabulary``; written beside it, unless empty.
    """
    content = io.BytesIO()
    torch.save(module.state_dict(), content)
    try:
        if vocabulary:
            with replaced(path.with_name(VOCABULARY)) as file:
                file.write_text(f"{vocabulary}\n")
        with replaced(path) as file:
            file.write_bytes(content.getbuffer())
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from None


def save_models(modules: Iterable[nn.Module], config: Config, folder: Path, vocabulary: str) -> None:
    """Write the networks of ``config.models``: the first into the run folder, each other one into a folder of its own,
    beside settings that are about it."""
    for name, label, module in zip(config.models, labels(config.models), modules, strict=True):
        place = folder if name == config.models[0] else folder / "models" / label
        place.mkdir(parents=True, exist_ok=True)
        if place != folder:
            with replaced(place / "config.yaml") as file:
                file.write_text(yaml.safe_dump(config.with_model(name).flat(), sort_keys=False))
        save_model(module, place / "model.pt", vocabulary)


def write_json(path: Path, content: Any) -> None:
    """Write the whole file or nothing, so that a reader never sees half a file."""
    with replaced(path) as file:
        file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
