"""Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019), by `tokenizers`.

That library is of the extra `fedsparse[text]`, and is imported only when a tokenizer of this kind is asked for.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fedsparse.partitions.dataset import DataError, reason
from fedsparse.partitions.downloads import allowed, reach_hub
from fedsparse.partitions.tokenizer import Ints, Tokenizer

END = "<|endoftext|>"
ENDS = (END, "</s>", "<eos>", "<|end_of_text|>", "[SEP]")
"""Names that tokenizers give the token that ends a document."""


class Bpe(Tokenizer):
    """A tokenizer of the library.

    Args:
        inner: a `tokenizers.Tokenizer`.
    """

    def __init__(self, inner: Any) -> None:
        self.inner, self.size = inner, inner.get_vocab_size()
        inner.encode_special_tokens = True  # so the name of a special token in a text is text
        known = [inner.token_to_id(name) for name in ENDS]
        ends = [*(token for token in known if token is not None), *inner.encode("\n", add_special_tokens=False).ids]
        self.end = ends[0] if ends else 0

    @property
    def vocabulary(self) -> list[str]:
        """The tokens as the library writes them; a number without a token is empty."""
        return [self.inner.id_to_token(number) or "" for number in range(self.size)]

    @property
    def content(self) -> str:
        """The tokenizer.json."""
        return str(self.inner.to_str())

    def encode(self, text: str) -> Ints:
        """The tokens, without special ones."""
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text."""
        return str(self.inner.decode(list(tokens), skip_special_tokens=False))


def library() -> Any:
    """The module `tokenizers`.

    Raises:
        DataError: it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the fork of the workers
    try:
        import tokenizers
    except ImportError:
        raise DataError("this tokenizer needs the library tokenizers: pip install 'fedsparse[text]'") from None
    return tokenizers


def trained(texts: Iterable[str], size: int, file: Path) -> Bpe:
    """A tokenizer with at most `size` tokens, trained on the texts and kept in `file`; read from there if it exists.

    Raises:
        DataError: the file cannot be read or written.
    """
    if file.is_file():
        return from_path(file)
    if not allowed():
        raise DataError(f"{file}: is not trained yet")
    tokenizers = library()
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    save(inner, file)
    return Bpe(inner)


def save(inner: Any, file: Path) -> None:
    """Write the tokenizer aside, then rename it, because another run may do the same at this moment.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f"{file.name}.{os.getpid()}")
        aside.write_text(inner.to_str(), encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        raise DataError(f"cannot keep the tokenizer in {file}: {reason(error)}") from error


def from_path(path: Path) -> Bpe:
    """The tokenizer in a tokenizer.json, or in a folder with tokenizer.json or vocab.json and merges.txt.

    Raises:
        DataError: there is none, or it is damaged.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    vocabulary, merges = path / "vocab.json", path / "merges.txt"
    pair = not file.is_file() and vocabulary.is_file() and merges.is_file()
    if not file.is_file() and not pair:
        raise DataError(f"no tokenizer in {path}: looked for tokenizer.json, and for vocab.json with merges.txt")
    tokenizers = library()
    try:
        if not pair:
            return Bpe(tokenizers.Tokenizer.from_file(str(file)))
        inner = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocabulary), str(merges)))
        inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = tokenizers.decoders.ByteLevel()
        return Bpe(inner)
    except Exception as error:  # the library raises plain Exceptions
        raise DataError(f"{file if not pair else vocabulary}: damaged, or no tokenizer ({reason(error)})") from error


def gpt2(data_dir: Path) -> Bpe:
    """GPT-2's tokenizer, of 50,257 tokens, in `data_dir`/gpt2; downloaded there if absent.

    Raises:
        DataError: it is absent, and cannot be downloaded.
    """
    folder = data_dir / "gpt2"
    try:
        return from_path(folder)
    except DataError as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise
        absent = error
    try:
        if not allowed():
            raise absent
        reach_hub()
        inner = library().Tokenizer.from_pretrained("openai-community/gpt2")
    except Exception as error:  # the library raises plain Exceptions
        tried = "" if error is absent else f", and the download failed ({reason(error)})"
        raise DataError(f"tokenizer = gpt2: {absent}{tried}") from None
    save(inner, folder / "tokenizer.json")
    return Bpe(inner)
