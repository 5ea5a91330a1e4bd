"""Penn Treebank, WikiText and OpenWebText: read from `data_dir` in the formats in which people have them.

Plain text, .parquet and .jsonl; absent ones are downloaded by the library datasets, of the extra `fedsparse[text]`.
Sources: Mikolov's preprocessing of the Penn Treebank (Marcus et al. 1993; Mikolov et al. 2010); WikiText (Merity et al.
2016, arXiv:1609.07843); OpenWebText (Gokaslan and Cohen 2019).
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedsparse.partitions.corpus import Corpus, Document, held_out, read_corpus
from fedsparse.partitions.dataset import DataError, reason
from fedsparse.partitions.downloads import allowed, reach_hub
from fedsparse.partitions.text import Text
from fedsparse.partitions.text_files import JsonLines, read_text

HEADING = re.compile(r" ?= [^=].*[^=] = ?")
"""The first line of an article of WikiText; sections have more equals signs."""
FORMS = ("{}.txt", "{}.tokens", "{}.raw", "{}.parquet", "{}-*.parquet", "{}.jsonl", "{}-*.jsonl")
"""What the files of a corpus may also be called, with {} for `train` or `test`."""
WIKI = ("wiki.{}.tokens", "wiki.{}.raw", *FORMS)


@dataclass(frozen=True)
class Source:
    """A corpus by name.

    Attributes:
        folders: under `data_dir`, in which its files are looked for.
        forms: what its files may be called, the published name first; without {}, all files are training text. In
            `data_dir` itself, which may hold other text, only the first is looked for.
        hub: the arguments of `datasets.load_dataset`.
        mebibytes: of the download.
        auto: the tokenizer that `auto` stands for.
        test_share: of the documents, where there is no test set.
    """

    folders: tuple[str, ...]
    forms: tuple[str, ...]
    hub: tuple[str, ...]
    mebibytes: int
    auto: str = "bpe:8000"
    test_share: float = 0.1


SOURCES = {
    "ptb": Source(
        ("ptb", "simple-examples/data", "penn", "."),
        ("ptb.{}.txt", *FORMS),
        ("ptb-text-only/ptb_text_only", "penn_treebank"),
        6,
        "word",
    ),
    "wikitext2": Source(
        ("wikitext2", "wikitext-2-raw-v1", "wikitext-2-raw", "wikitext-2-v1", "wikitext-2"),
        WIKI,
        ("Salesforce/wikitext", "wikitext-2-raw-v1"),
        8,
    ),
    "wikitext103": Source(
        ("wikitext103", "wikitext-103-raw-v1", "wikitext-103-raw", "wikitext-103-v1", "wikitext-103"),
        WIKI,
        ("Salesforce/wikitext", "wikitext-103-raw-v1"),
        315,
    ),
    "openwebtext": Source(
        ("openwebtext",), ("*.parquet", "*.jsonl", "*.txt"), ("Skylion007/openwebtext",), 24_000, test_share=0.0005
    ),
}


def load(name: str, data_dir: Path, tokenizer: str, seq_length: int) -> Text:
    """The corpus `name` of SOURCES.

    It is read from the first of its folders that has training text, and there from the files of one form alone, because
    other files may be the same text once more. Without test text of that form, the last of the documents are the test.
    Files of validation are not used.

    Raises:
        DataError: the corpus is absent and cannot be downloaded, or its files are damaged.
    """
    source = SOURCES[name]
    found = next((files for folder in source.folders if (files := _files(data_dir, folder, source))), None)
    if found is None:
        _download(name, source, data_dir)
        found = _files(data_dir, source.folders[0], source)
        if found is None:
            raise DataError(f"{name}: the download has no training text")
    train, test = found
    documents = Documents(train, name)
    learned: Iterable[Document] = documents
    tested: Iterable[Document] = Documents(test, name)
    if not test:
        learned, tested = held_out(documents, source.test_share)
    corpus = Corpus(learned, tested, source.auto, train[0].parent / ".tokens", (*train, *test))
    try:
        return read_corpus(corpus, tokenizer, seq_length, data_dir)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


ptb = partial(load, "ptb")
wikitext2 = partial(load, "wikitext2")
wikitext103 = partial(load, "wikitext103")
openwebtext = partial(load, "openwebtext")


def _files(data_dir: Path, folder: str, source: Source) -> tuple[tuple[Path, ...], tuple[Path, ...]] | None:
    """The training and the test files of the first form that has both, or else the former; None without the former."""
    forms = source.forms[:1] if folder == "." else source.forms
    found = [(_named(data_dir / folder, form, "train"), _named(data_dir / folder, form, "test")) for form in forms]
    return next((files for files in found if all(files)), next((files for files in found if files[0]), None))


def _named(place: Path, form: str, split: str) -> tuple[Path, ...]:
    if "{}" not in form and split == "test":
        return ()
    return tuple(sorted(file for file in place.glob(form.format(split)) if not file.name.startswith(".")))


@dataclass(frozen=True)
class Documents:
    """The documents of files: lines of .jsonl, rows of .parquet, articles of WikiText, else each file as a whole."""

    files: tuple[Path, ...]
    name: str

    def __iter__(self) -> Iterator[Document]:
        for file in self.files:
            if file.suffix == ".jsonl":
                yield from JsonLines(file)
            elif self.name == "openwebtext":
                texts = rows(file) if file.suffix == ".parquet" else [read_text(file)]
                yield from map(Document, texts)
            else:
                lines = rows(file) if file.suffix == ".parquet" else read_text(file).splitlines()
                yield from map(Document, self._joined(line.rstrip("\n") for line in lines))

    def _joined(self, lines: Iterable[str]) -> Iterator[str]:
        """Lines as documents. Blank lines and the blanks around lines carry nothing, and are left out."""
        document = list[str]()
        for line in lines:
            if HEADING.fullmatch(line) and document and self.name != "ptb":
                yield "\n".join(document)
                document = []
            if line.strip():
                document.append(line.strip())
        if document:
            yield "\n".join(document)


def rows(file: Path) -> Iterator[str]:
    """The texts of a .parquet file, of the column `text`, or of `sentence` as the Penn Treebank has it.

    Raises:
        DataError: pyarrow is not installed, the file is damaged, or it has neither column.
    """
    try:
        from pyarrow import parquet  # imported here, because it belongs to an extra
    except ImportError:
        raise DataError(f"{file}: .parquet needs pyarrow: pip install 'fedsparse[text]'") from None
    try:
        with parquet.ParquetFile(file) as table:
            column = next((c for c in ("text", "sentence") if c in table.schema_arrow.names), None)
            if column is None:
                raise DataError(f"{file}: has no column text (it has {', '.join(table.schema_arrow.names)})")
            for batch in table.iter_batches(columns=[column]):
                yield from (text or "" for text in batch.column(0).to_pylist())
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many types of error for damaged files
        raise DataError(f"{file}: damaged, or no .parquet ({reason(error)})") from error


def _download(name: str, source: Source, data_dir: Path) -> None:
    """Download the corpus into the first of its folders, as .parquet.

    Raises:
        DataError: it cannot be downloaded; the line says where it was looked for.
    """
    place, names = data_dir / source.folders[0], [form.format("train") for form in source.forms]
    others = f" (nor in {', '.join(source.folders[1:])})" if source.folders[1:] else ""
    looked = f"{name}: no {', '.join(names[:-1])} or {names[-1]} in {place}{others}"
    if not allowed():
        raise DataError(looked)
    try:
        import datasets  # imported here, because it belongs to an extra, and takes seconds
    except ImportError:
        raise DataError(f"{looked}; put them there, or pip install 'fedsparse[text]' to download them") from None
    print(f"downloading {name} ({source.mebibytes:,} MiB) into {place}", file=sys.stderr)
    try:
        reach_hub()
        datasets.disable_progress_bars()
        splits: Any = datasets.load_dataset(*source.hub, cache_dir=str(place / ".download"))
        place.mkdir(parents=True, exist_ok=True)
        for split in ("test", "train"):  # the test first: without it, a folder would seem whole
            if split in splits:
                splits[split].to_parquet(place / f"{split}.parquet")
    except Exception as error:  # the library raises many types of error
        raise DataError(f"{looked}, and the download failed ({reason(error)}); put them there") from error
