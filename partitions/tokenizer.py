"""From text to whole numbers and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

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

    def encode(self, text: str) -> Ints:
        """The place of each character in `characters`."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return self._tokens[np.minimum(points, len(self._tokens) - 1)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The characters."""
        return "".join(self.characters[token] for token in tokens)
