"""A user's own text: a .txt file, a folder of .txt files, or a .jsonl file; and how files of text are read."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedsparse.partitions.corpus import Corpus, Document, held_out, read_corpus
from fedsparse.partitions.dataset import DataError, reason
from fedsparse.partitions.text import Text

BLANK_LINES = re.compile(r"\n\s*\n")


def load_text(path: Path, tokenizer: str, seq_length: int, data_dir: Path) -> Text:
    """Reads the file or the folder.

    A .txt file is text without clients; its documents are paragraphs, between blank lines, or lines if there are none.
    A folder has one such file a client; with the folders train/ and test/ in it, these say what the test is. A .jsonl
    file has a document a line: an object with `text`, and perhaps with `client` and `label`. Without a test, the last
    tenth of each client's documents is the test.

    Raises:
        DataError: a file is absent, empty, not UTF-8 or, as .jsonl, not as above; or see `read_corpus`.
    """
    try:
        return read_corpus(_corpus(path), tokenizer, seq_length, data_dir)
    except DataError as error:
        message = str(error)
        raise DataError(message if message.startswith((str(path), "tokenizer")) else f"{path}: {message}") from None


def is_text(path: Path) -> bool:
    """Whether a path names text: a file of it, or a folder with .txt files, in itself or in train/."""
    return path.suffix in (".txt", ".jsonl") or any(any(place.glob("*.txt")) for place in (path, path / "train"))


def _corpus(path: Path) -> Corpus:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_dir():
        documents = JsonLines(path) if path.suffix == ".jsonl" else Paragraphs((path,))
        kept = path.with_name(f"{path.name}.tokens")
        return Corpus(*held_out(documents), "char", kept, (path,))
    kept = path / ".tokens"
    if (path / "train").is_dir():
        train, test = (_texts(path / split) for split in ("train", "test"))
        return Corpus(Paragraphs(train, named=True), Paragraphs(test, named=True), "char", kept, train + test)
    files = _texts(path)
    return Corpus(*held_out(Paragraphs(files, named=True)), "char", kept, files)


def _texts(folder: Path) -> tuple[Path, ...]:
    files = tuple(sorted(folder.glob("*.txt")))
    if not files:
        raise DataError(f"{folder}: no .txt files in it")
    return files


@dataclass(frozen=True)
class Paragraphs:
    """The paragraphs of .txt files; `named` if each file is a client of its name."""

    files: tuple[Path, ...]
    named: bool = False

    def __iter__(self) -> Iterator[Document]:
        for file in self.files:
            text = read_text(file)
            parts = [part.strip("\n") for part in BLANK_LINES.split(text) if part.strip()]
            for part in parts if len(parts) > 1 else text.splitlines():
                yield Document(part, file.stem if self.named else "")


@dataclass(frozen=True)
class JsonLines:
    """The documents of a .jsonl file."""

    file: Path

    def __iter__(self) -> Iterator[Document]:
        empty = True
        for number, line in enumerate(_lines(self.file), start=1):
            if not line.strip():
                continue
            empty = False
            try:
                document = _document(line)
            except UnicodeEncodeError:
                raise DataError(f"{self.file}, line {number}: has half of a surrogate pair, such as \\ud800") from None
            except UnicodeDecodeError:
                raise DataError(f"{self.file}, line {number}: is not UTF-8") from None
            except (ValueError, KeyError, TypeError, RecursionError):
                shown = line.decode(errors="replace").strip()[:40]
                allowed = '{"text": "..."}, with text or a number as client and label'
                raise DataError(f"{self.file}, line {number}: should be like {allowed}, not {shown}") from None
            yield document
        if empty:
            raise DataError(f"{self.file}: is empty")


def _document(line: bytes) -> Document:
    """The document of a line; raises many types of error if the line is not as it should be."""
    found = json.loads(line)
    text, *names = (found["text"], *(found.get(key) for key in ("client", "label")))
    if not isinstance(text, str) or not all(isinstance(name, str | int | float | None) for name in names):
        raise TypeError
    document = Document(text, *("" if name is None else str(name) for name in names))
    "".join(document).encode()
    return document


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {reason(error)}") from error


def read_text(file: Path) -> str:
    """The text of a file, with \\n at the end of each line.

    Raises:
        DataError: the file cannot be read, is empty, or is not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {reason(error)}") from error
    if not text.strip():
        raise DataError(f"{file}: is empty")
    return text
