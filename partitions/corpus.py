"""Documents, and how they become a data set: tokenized, a client's together, cut into windows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fedsparse.partitions import bpe
from fedsparse.partitions.dataset import DataError
from fedsparse.partitions.text import Text, Windows
from fedsparse.partitions.token_store import Stream, encoded, stored
from fedsparse.partitions.tokenizer import Byte, Char, Tokenizer, Word

LARGE = 2**26
"""Bytes of files above which their tokens are kept on disk, and read as a memory map."""
Ints = np.typing.NDArray[np.int64]


class Document(NamedTuple):
    """A text that is never split between training and test.

    Attributes:
        client: the name of the natural client that wrote it; empty for none.
        label: the class of the document, for distributions that skew classes; empty for none.
    """

    text: str
    client: str = ""
    label: str = ""


@dataclass(frozen=True)
class Corpus:
    """Documents to learn from and to test with, which are read again each time they are needed: no generators.

    Attributes:
        train, test: a client of `test` need not be in `train`.
        auto: the tokenizer that `auto` stands for.
        kept: the folder in which trained tokenizers and the tokens of large files are kept.
        files: what the documents are read from; when a file changes, nothing that was kept is used.
    """

    train: Iterable[Document]
    test: Iterable[Document]
    auto: str = "char"
    kept: Path = Path("data")
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if any(iter(documents) is documents for documents in (self.train, self.test)):
            raise DataError("Corpus: documents are read several times, so give a list, not a generator")

    @property
    def stamp(self) -> str:
        """Eight hexadecimal digits that change with the files."""
        facts = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in self.files]
        return sha256(repr(facts).encode()).hexdigest()[:8]


def read_corpus(corpus: Corpus, tokenizer: str, seq_length: int, data_dir: Path = Path("data")) -> Text:
    """The data set of a corpus.

    Args:
        tokenizer: auto, char, byte, word, word:N, bpe:N, gpt2, or the path of a tokenizer of Hugging Face's.
        seq_length: tokens of a window.
        data_dir: the folder in which gpt2 is looked for.

    Raises:
        DataError: the tokenizer or a text is missing or damaged, or a client has fewer tokens than a window.
    """
    tokenizer = corpus.auto if tokenizer == "auto" else tokenizer
    made = make_tokenizer(tokenizer, corpus, data_dir)
    clients = dict[str, int]()
    if sum(file.stat().st_size for file in corpus.files) > LARGE:
        content = sha256(made.content.encode(errors="surrogatepass")).hexdigest()[:16]
        name = f"{type(made).__name__.lower()}-{content}-{corpus.stamp}"
        streams = [
            stored(documents, made, clients, corpus.kept / f"{name}-{split}")
            for split, documents in (("train", corpus.train), ("test", corpus.test))
        ]
    else:
        streams = [encoded(documents, made, clients) for documents in (corpus.train, corpus.test)]
    return _cut(streams[0], streams[1], made, seq_length, list(clients))


def make_tokenizer(name: str, corpus: Corpus, data_dir: Path) -> Tokenizer:
    """The tokenizer of a name, its vocabulary learned from the training text where it has one of its own.

    Raises:
        DataError: there is no such tokenizer, or `bpe` has no size.
    """
    kind, _, size = name.partition(":")
    texts = (document.text for document in corpus.train)
    if name == "bpe":
        raise DataError("tokenizer = bpe: needs the size of its vocabulary, such as bpe:8000")
    if kind in ("word", "bpe") and size and not (size.isdecimal() and 300 <= int(size) <= 2**24):
        raise DataError(f"tokenizer = {name}: the size of a vocabulary is 300 to {2**24}")
    if kind == "char":
        return Char(texts)
    if kind == "byte":
        return Byte()
    if kind == "word":
        return Word(texts, int(size or 10_000))
    if kind == "bpe":
        return bpe.trained(texts, int(size), corpus.kept / f"bpe-{size}-{corpus.stamp}.json")
    if kind == "gpt2":
        return bpe.gpt2(data_dir)
    return bpe.from_path(Path(name).expanduser())


@dataclass(frozen=True)
class Part:
    """The training or the test documents of a source that has no test set.

    Args:
        documents: read again for each pass.
        kept: how many documents of each client are for training; filled in the first pass.
        test: whether these are the test documents.
        share: of a client's documents that are the test.
    """

    documents: Iterable[Document]
    kept: dict[str, int]
    test: bool
    share: float

    def __iter__(self) -> Iterator[Document]:
        if not self.kept:
            for client, n in Counter(document.client for document in self.documents).items():
                self.kept[client] = n - (max(1, round(self.share * n)) if n > 1 else 0)
        seen = Counter[str]()
        for document in self.documents:
            seen[document.client] += 1
            if (seen[document.client] > self.kept[document.client]) == self.test:
                yield document


def held_out(documents: Iterable[Document], share: float = 0.1) -> tuple[Part, Part]:
    """Training and test: of each client with several documents, the last `share` of them is the test, at least one."""
    kept = dict[str, int]()
    return Part(documents, kept, False, share), Part(documents, kept, True, share)


def _cut(train: Stream, test: Stream, tokenizer: Tokenizer, seq_length: int, clients: list[str]) -> Text:
    (starts, documents), (test_starts, _) = _windows(train, seq_length), _windows(test, seq_length)
    needed = seq_length + 1
    for split, stream in (("training", train), ("test", test)):
        if not len(stream.tokens):
            advice = "; give it a second document (in .txt, after a blank line), or a test set" * (split == "test")
            raise DataError(f"there is no {split} text{advice}")
    for split, stream, found in (("training", train, starts), ("test", test, test_starts)):
        if not len(found):
            raise DataError(
                f"seq-length = {seq_length}: a window needs {needed} tokens, but the longest {split} text has "
                f"{_by_client(stream)[1].max()}; lower it"
            )
    present, lengths = _by_client(train)
    if (short := lengths < needed).any():
        raise DataError(
            f"seq-length = {seq_length}: a window needs {needed} tokens, but the training text of client "
            f"{clients[present[short.argmax()]]!r} has {lengths[short.argmax()]}; lower it"
        )
    names, labels = np.unique(train.labels, return_inverse=True)
    labelled = bool(any(names))
    owners: Ints = np.unique(train.clients[documents], return_inverse=True)[1].astype(np.int64)
    return Text(
        classes=tokenizer.size,
        train=Windows(torch.from_numpy(train.tokens), torch.from_numpy(starts)),
        test=Windows(torch.from_numpy(test.tokens), torch.from_numpy(test_starts)),
        seq_length=seq_length,
        tokenizer=tokenizer,
        bytes_per_token=test.bytes / len(test.tokens),
        window_labels=labels[documents].astype(np.int64) if labelled else None,
        owners=owners if any(clients) else None,
    )


def _by_client(stream: Stream) -> tuple[Ints, Ints]:
    """The clients in their order in the stream, and how many tokens each has."""
    firsts = np.flatnonzero(np.diff(stream.clients, prepend=-1))
    return stream.clients[firsts], np.add.reduceat(stream.lengths, firsts)


def _windows(stream: Stream, seq_length: int) -> tuple[Ints, Ints]:
    """Where each window begins, and the document in which it does."""
    if not len(stream.lengths):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    _, lengths = _by_client(stream)
    counts = np.maximum(lengths - 1, 0) // seq_length
    begins = np.cumsum(lengths) - lengths
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(begins, counts) + seq_length * place
    return starts, np.searchsorted(np.cumsum(stream.lengths), starts, side="right")
