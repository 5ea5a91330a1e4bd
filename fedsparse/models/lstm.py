"""Language models of two LSTM layers (Hochreiter and Schmidhuber 1997), whose output layer is the token table (tied).

Zaremba, Sutskever and Vinyals 2014, "Recurrent neural network regularization"; tied: Press and Wolf 2017, "Using the
output embedding to improve language models". Not as in these papers: a window starts from a state of zeros instead of
the last window's state, because clients draw their windows in random order; and torch's LSTM has two biases, of which
one would do.

Shapes: B windows, T tokens of a window, C units, V tokens of the vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.models.cnn import scaled


class LSTM(nn.Module):
    """The model; the token table is one entry of a layout.

    Args:
        vocabulary: V.
        units: C.
        dropout: of the connections between layers, not of those in time.
        spread: initial weights are uniform in (-spread, spread).
    """

    def __init__(self, vocabulary: int, units: int, dropout: float = 0.0, spread: float = 0.1) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, units)  # (V, C)
        self.lstm = nn.LSTM(units, units, num_layers=2, dropout=dropout, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(vocabulary))  # (V,)
        self.dropout = nn.Dropout(dropout)
        for p in (self.tokens.weight, *self.lstm.parameters()):
            nn.init.uniform_(p, -spread, spread)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 ``(B, T)`` -> the scores of each next token, ``(B, T, V)``."""
        x = self.dropout(self.tokens(tokens))  # (B, T, C)
        x, _ = self.lstm(x)  # (B, T, C)
        return F.linear(self.dropout(x), self.tokens.weight, self.bias)


def lstm(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """256 units, for characters, as in McMahan et al. 2017 (section 3), but tied (1.1M weights for 80 characters)."""
    return LSTM(classes, scaled(256, width))


def lstm_small(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """Zaremba's small model: 200 units, no dropout (2.7M weights for 10,000 words)."""
    return LSTM(classes, scaled(200, width))


def lstm_medium(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """Zaremba's medium model: 650 units, dropout 0.5 (13.3M weights for 10,000 words)."""
    return LSTM(classes, scaled(650, width), dropout=0.5, spread=0.05)


def lstm_large(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """Zaremba's large model: 1500 units, dropout 0.65 (51.0M weights for 10,000 words)."""
    return LSTM(classes, scaled(1500, width), dropout=0.65, spread=0.04)
