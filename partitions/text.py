"""Text as one array of tokens. A sample is a window of it: the tokens, and for each the token that follows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.partitions.dataset import Batch, Dataset
from fedsparse.partitions.tokenizer import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from fedsparse.partitions.split import Partition

Ints = NDArray[np.int64]
ON_DEVICE = 2**32
"""Bytes of tokens up to which they are copied to a GPU; of more, each batch is."""
MOST_COUNTED = 20_000
"""Windows of which a picture counts the tokens."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one array of tokens.

    Attributes:
        tokens: (L,), uint8, int16 or int32; a token above 32,767 is a negative int16.
        starts: (N,) int64, where each window begins; it has `seq_length` tokens, and one more as the last target.
    """

    tokens: Tensor
    starts: Tensor

    def batch(self, starts: Tensor, length: int) -> Batch:
        """Inputs and targets (B, length), int64, of the windows that begin at `starts`, (B,)."""
        places = starts.unsqueeze(1) + torch.arange(length + 1, device=starts.device)
        tokens = self.tokens[places.to(self.tokens.device)].to(starts.device).long()
        if self.tokens.dtype == torch.int16:
            tokens &= 0xFFFF
        return tokens[:, :-1], tokens[:, 1:]


@dataclass(frozen=True, eq=False)  # hashed by identity, so that `to` can cache its results
class Text(Dataset):
    """Text in windows of `seq_length` tokens, which do not overlap; a window never holds text of two clients.

    The rest of a client's text that is shorter than a window is left out.

    Attributes:
        classes: the size of the vocabulary.
        train, test: the windows.
        seq_length: tokens of a window.
        tokenizer: from text to tokens and back.
        bytes_per_token: of the test text, in UTF-8.
        window_labels: the label of the document in which each training window begins, (N_train,); None if documents
            have none.
        owners, task: as in `Dataset`.
    """

    kind = "text"
    classes: int
    train: Windows
    test: Windows
    seq_length: int
    tokenizer: Tokenizer
    bytes_per_token: float
    window_labels: Ints | None = None
    owners: Ints | None = None
    task: Any = "language"

    @property
    def vocabulary(self) -> str:
        """The tokenizer's fingerprint."""
        return self.tokenizer.fingerprint

    @property
    def train_size(self) -> int:
        """How many training windows there are."""
        return len(self.train.starts)

    @property
    def test_size(self) -> int:
        """How many test windows there are."""
        return len(self.test.starts)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(T,), the tokens of a window."""
        return (self.seq_length,)

    @property
    def samples_in_words(self) -> str:
        """Such as ``windows of 128 tokens``."""
        return f"windows of {self.seq_length} tokens"

    @property
    def labels(self) -> Ints | None:
        """The label of each training window; None if documents have none."""
        return self.window_labels

    def to(self, device: str | torch.device) -> "Text":
        """The data set on `device`; the same call returns the same object again."""
        return _to_device(self, torch.device(device))

    def fetch(self, indices: Tensor, generator: torch.Generator | None = None) -> Callable[[Tensor], Batch]:
        """Windows; with a generator, each begins up to a window earlier, at random.

        A window is shifted only into the window before it, and only if `indices` has that window too. So a client
        never sees tokens of another client, or tokens that it holds out.
        """
        starts = self.train.starts.index_select(0, indices)
        follows = torch.zeros(len(starts), dtype=torch.int64, device=starts.device)
        follows[1:] = starts.diff() == self.seq_length

        def batch(positions: Tensor) -> Batch:
            chosen = starts.index_select(0, positions)
            if generator is not None:
                draws = torch.randint(self.seq_length, (len(chosen),), generator=generator, device=generator.device)
                chosen = chosen - draws.to(chosen.device) * follows.index_select(0, positions)
            return self.train.batch(chosen, self.seq_length)

        return batch

    def test_batch(self, positions: Tensor) -> Batch:
        """Test windows."""
        return self.test.batch(self.test.starts[positions], self.seq_length)

    def trial(self) -> Batch:
        """Two windows, of the first and of the last token of the vocabulary."""
        tokens = torch.tensor([0, self.classes - 1]).unsqueeze(1).expand(2, self.seq_length)
        return tokens, tokens

    def unigrams(self, indices: Ints) -> NDArray[np.float64]:
        """(classes,): the share of each token in these training windows; of very many, in evenly spaced ones."""
        if len(indices) > MOST_COUNTED:
            indices = indices[np.linspace(0, len(indices) - 1, MOST_COUNTED).astype(int)]
        inputs, _ = self.train.batch(self.train.starts[torch.from_numpy(indices)], self.seq_length)
        counts: Ints = torch.bincount(inputs.flatten(), minlength=self.classes).cpu().numpy()
        return counts / counts.sum()

    def table(self, partition: "Partition", width: int) -> str:
        """Tokens of each client, and how far its unigram distribution is from the whole."""
        from fedsparse.partitions.text_picture import (
            tokens_text,  # imported here, because matplotlib costs most of a second
        )

        return tokens_text(self, partition, width)

    def draw(self, partition: "Partition", figure: "Figure | SubFigure") -> None:
        """Tokens of each client, and how far its unigram distribution is from the whole."""
        from fedsparse.partitions.text_picture import draw_tokens

        draw_tokens(self, partition, figure)

    def plot(self, partition: "Partition") -> "Figure":
        """The same in a new figure."""
        from fedsparse.partitions.text_picture import plot_tokens

        return plot_tokens(self, partition)


@lru_cache(maxsize=2)  # two at most, because a data set on a GPU is large
def _to_device(data: Text, device: torch.device) -> Text:
    if device == data.train.starts.device:
        return data

    def moved(windows: Windows) -> Windows:
        fits = windows.tokens.nbytes <= ON_DEVICE
        return Windows(windows.tokens.to(device) if fits else windows.tokens, windows.starts.to(device))

    return replace(data, train=moved(data.train), test=moved(data.test))
