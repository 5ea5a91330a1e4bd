"""Documents as one array of tokens, in memory or in a file that is read as a memory map."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fedsparse.partitions.dataset import DataError, reason
from fedsparse.partitions.downloads import allowed
from fedsparse.partitions.tokenizer import Tokenizer

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stream:
    """Tokens of documents, one document after the other, each with its end; documents of one client are neighbours.

    Attributes:
        tokens: (L,), uint8, int16 (a token above 32,767 is negative) or int32, as the vocabulary needs.
        lengths, clients: the tokens and the client of each document, (D,) int64.
        labels: of each document, (D,) text.
        bytes: of the text in UTF-8, with one byte for the end of each document.
    """

    tokens: NDArray[Any]
    lengths: Ints
    clients: Ints
    labels: NDArray[np.str_]
    bytes: int


def encoded(documents: Iterable[tuple[str, str, str]], tokenizer: Tokenizer, clients: dict[str, int]) -> Stream:
    """The documents (text, client, label) as tokens; those of a client are put together, and sorted by label.

    Args:
        clients: the number of each name; new names get the next numbers.
    """
    pieces = list[NDArray[Any]]()
    lengths, owners, labels, size = _encode(documents, tokenizer, clients, pieces.append)
    order = np.lexsort((labels, owners))
    tokens = np.concatenate([pieces[i] for i in order]) if pieces else np.empty(0, _dtype(tokenizer))
    return Stream(tokens, lengths[order], owners[order], labels[order], size)


def stored(
    documents: Iterable[tuple[str, str, str]], tokenizer: Tokenizer, clients: dict[str, int], place: Path
) -> Stream:
    """As `encoded`, but the tokens are in the file `place`.tokens, and what is found there is used.

    Raises:
        DataError: the files cannot be written.
    """
    facts, file = place.with_name(f"{place.name}.npz"), place.with_name(f"{place.name}.tokens")
    try:
        if not facts.is_file():
            if not allowed():
                raise DataError(f"{file}: is not written yet")
            place.parent.mkdir(parents=True, exist_ok=True)
            _store(documents, tokenizer, facts, file)
        with np.load(facts) as found:
            lengths, owners, labels, names, size = (
                found[k] for k in ("lengths", "clients", "labels", "names", "bytes")
            )
        # Copy-on-write, because torch wants memory that could be written to.
        tokens = np.memmap(file, _dtype(tokenizer), mode="c") if lengths.size else np.empty(0, _dtype(tokenizer))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot keep the tokens in {file}: {reason(error)}") from error
    numbers = np.array([clients.setdefault(str(name), len(clients)) for name in names], np.int64)
    return Stream(tokens, lengths, numbers[owners], labels, int(size))


def _store(documents: Iterable[tuple[str, str, str]], tokenizer: Tokenizer, facts: Path, file: Path) -> None:
    """Write both files aside, then rename them, because another run may do the same at this moment."""
    own, aside = dict[str, int](), file.with_name(f"{file.name}.{os.getpid()}")
    with aside.open("wb") as out:
        lengths, owners, labels, size = _encode(documents, tokenizer, own, lambda piece: _write(out, piece))
    order = np.lexsort((labels, owners))
    if (np.diff(order) != 1).any():
        unsorted, ends = np.memmap(aside, _dtype(tokenizer), mode="r"), np.cumsum(lengths)
        sorted_file = file.with_name(f"{file.name}.{os.getpid()}.sorted")
        with sorted_file.open("wb") as out:
            for i in order:
                _write(out, unsorted[ends[i] - lengths[i] : ends[i]])
        sorted_file.replace(aside)
    aside.replace(file)
    shown = {"lengths": lengths[order], "clients": owners[order], "labels": labels[order], "names": list(own)}
    temporary = facts.with_name(f"{facts.stem}.{os.getpid()}.npz")
    np.savez(temporary, bytes=size, **shown)  # type: ignore[arg-type]
    temporary.replace(facts)


def _encode(
    documents: Iterable[tuple[str, str, str]], tokenizer: Tokenizer, clients: dict[str, int], keep: Any
) -> tuple[Ints, Ints, NDArray[np.str_], int]:
    """Give the tokens of each document to `keep`; returns lengths, clients, labels and bytes."""
    dtype, lengths, owners, labels, size = _dtype(tokenizer), list[int](), list[int](), list[str](), 0
    for text, client, label in documents:
        tokens = np.append(tokenizer.encode(text), tokenizer.end)
        keep(tokens.astype(np.uint16).view(dtype) if dtype == np.int16 else tokens.astype(dtype))
        lengths.append(len(tokens))
        owners.append(clients.setdefault(client, len(clients)))
        labels.append(label)
        size += len(text.encode()) + 1
    return np.array(lengths, np.int64), np.array(owners, np.int64), np.array(labels, np.str_), size


def _write(out: BinaryIO, tokens: NDArray[Any]) -> None:
    out.write(tokens.tobytes())


def _dtype(tokenizer: Tokenizer) -> type[np.generic]:
    return np.uint8 if tokenizer.size <= 2**8 else np.int16 if tokenizer.size <= 2**16 else np.int32
