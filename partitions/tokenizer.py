"""From text to whole numbers and back."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Tokenizer(ABC):
    """What every tokenizer is.

    Attributes:
        size: how many tokens the vocabulary has; a token is in [0, size).
        end: the token that follows every document.
    """

    size: int
    end: int

    @property
    @abstractmethod
    def vocabulary(self) -> list[str]:
        """The text of each token, by number."""

    @property
    def content(self) -> str:
        """All that decides the tokens of a text."""
        return f"{type(self).__name__} {self.vocabulary}"

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the vocabulary, in hexadecimal digits: the same if every token number means the same."""
        return sha256(repr(self.vocabulary).encode(errors="surrogatepass")).hexdigest()

    @abstractmethod
    def encode(self, text: str) -> Ints:
        """The tokens of a document, (n,), without `end`."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; a token that stands for unknown text becomes a mark."""


class Char(Tokenizer):
    """A token a character. The vocabulary is the characters of the training text, the line break, and one for others.

    Token 0 stands for every character that the training text lacks. A document ends with a line break.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        found = {"\n"}
        for text in texts:
            found.update(text)
        self.characters = "\N{REPLACEMENT CHARACTER}" + "".join(sorted(found))
        self.size = len(self.characters)
        self._tokens = np.zeros(max(map(ord, found)) + 2, np.int64)  # by code point; the last is for all beyond
        self._tokens[[ord(c) for c in self.characters[1:]]] = np.arange(1, self.size)
        self.end = int(self._tokens[ord("\n")])

    @property
    def vocabulary(self) -> list[str]:
        """The characters."""
        return list(self.characters)

    def encode(self, text: str) -> Ints:
        """The place of each character in `characters`."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return self._tokens[np.minimum(points, len(self._tokens) - 1)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The characters."""
        return "".join(self.characters[token] for token in tokens)


class Byte(Tokenizer):
    """A token a byte of UTF-8. A document ends with a line break."""

    size = 256
    end = ord("\n")

    @property
    def vocabulary(self) -> list[str]:
        """The bytes, such as 0x0a."""
        return [f"{byte:#04x}" for byte in range(256)]

    def encode(self, text: str) -> Ints:
        """The bytes."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text; half a character becomes a mark."""
        return bytes(tokens).decode(errors="replace")


class Word(Tokenizer):
    """A token a word between blanks: the most frequent words of the training text, `<unk>` for others, `<eos>` a line.

    The vocabulary of 10,000 gives the tokens of Mikolov's Penn Treebank, whose text names `<unk>` itself.

    Args:
        texts: the training text.
        size: of the vocabulary, at least 2.
    """

    def __init__(self, texts: Iterable[str], size: int = 10_000) -> None:
        counts = Counter[str]()
        for text in texts:
            counts.update(text.split())
        special = ("<unk>", "<eos>")
        frequent = sorted((word for word in counts if word not in special), key=lambda word: (-counts[word], word))
        self.words = [*special, *frequent[: size - 2]]
        self.size, self.end = len(self.words), 1
        self._tokens = {word: token for token, word in enumerate(self.words)}

    @property
    def vocabulary(self) -> list[str]:
        """The words."""
        return self.words

    def encode(self, text: str) -> Ints:
        """The words of each line, and `<eos>` between lines."""
        get, tokens = self._tokens.get, list[int]()
        for line in text.splitlines():
            tokens += [get(word, 0) for word in line.split()]
            tokens.append(self.end)
        return np.array(tokens[:-1], np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        """The words, with a blank between them."""
        return " ".join(self.words[token] for token in tokens)
