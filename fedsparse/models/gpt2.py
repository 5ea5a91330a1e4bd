"""GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3), a transformer
decoder with normalisation before each part. The names of the weights are those of the published checkpoints.

Shapes: B windows, T tokens of a window, C units, V tokens of the vocabulary, H heads.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.models.cnn import scaled

POSITIONS = 1024
"""Rows of the published models' table of positions. A window may be shorter; the rows behind it are never trained."""


class Attention(nn.Module):
    """Each token looks at itself and at the tokens before it."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(units, 3 * units)  # queries, keys and values together
        self.c_proj = nn.Linear(units, units)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, C / H)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, C / H)
        out: Tensor = self.c_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)
        return out


class FeedForward(nn.Module):
    """The same two layers for each token."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(units, 4 * units)
        self.c_proj = nn.Linear(4 * units, units)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))  # (B, T, 4 C), then (B, T, C)
        return out


class Block(nn.Module):
    """Attention, then the layers for each token; each adds to its normalised input."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(units)
        self.attn = Attention(units, heads)
        self.ln_2 = nn.LayerNorm(units)
        self.mlp = FeedForward(units)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))  # (B, T, C)
        return x + self.mlp(self.ln_2(x))


class Tokens(nn.Module):
    """The first layer: the tables of tokens and of positions, added."""

    def __init__(self, wte: nn.Embedding, wpe: nn.Embedding) -> None:
        super().__init__()
        self.wte, self.wpe = wte, wpe

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        return x  # (B, T, C)


class NextToken(nn.Module):
    """The last layer, whose weights are those of the token table."""

    def __init__(self, ln_f: nn.LayerNorm, wte: nn.Embedding) -> None:
        super().__init__()
        self.ln_f = ln_f
        self.tied = (wte,)  # in a tuple, so that the table has one name in a state dict

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.ln_f(x), self.tied[0].weight)  # (B, T, V)

    def another(self) -> "NextToken":
        """One for an earlier block, with a normalisation of its own."""
        return NextToken(nn.LayerNorm(self.ln_f.normalized_shape), self.tied[0])


class GPT2(nn.Module):
    """The model; the output layer is the token table itself (tied), so that it is one entry of a layout.

    Args:
        vocabulary: V.
        positions: the longest window.
        blocks, heads, units: L, H and C; C is a multiple of H.
    """

    def __init__(self, vocabulary: int, positions: int, blocks: int, heads: int, units: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, units)  # (V, C)
        self.wpe = nn.Embedding(positions, units)  # (positions, C)
        self.h = nn.ModuleList(Block(units, heads) for _ in range(blocks))
        self.ln_f = nn.LayerNorm(units)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                # The paper divides by the root of the number of residual layers: there are two in each block.
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * blocks) if "c_proj" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 ``(B, T)`` -> the scores of each next token, ``(B, T, V)``."""
        x = tokens
        for module in self.chain():
            x = module(x)
        return x

    def chain(self) -> list[nn.Module]:
        """Modules of which each takes what the one before it gives."""
        return [Tokens(self.wte, self.wpe), *self.h, NextToken(self.ln_f, self.wte)]


def gpt2_nano(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """4 blocks of 128 units and 4 heads (0.8M weights for 80 characters): the small one of nanoGPT's examples.

    Its table of positions is as long as a window.
    """
    return GPT2(classes, input_shape[0], blocks=4, heads=4, units=4 * scaled(32, width))


def gpt2_small(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """The smallest published model: 12 blocks of 768 units (124,439,808 weights with its 50,257 tokens)."""
    return GPT2(classes, max(input_shape[0], POSITIONS), blocks=12, heads=12, units=12 * scaled(64, width))


def gpt2_medium(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """The second published model: 24 blocks of 1024 units (354,823,168 weights with its 50,257 tokens)."""
    return GPT2(classes, max(input_shape[0], POSITIONS), blocks=24, heads=16, units=16 * scaled(64, width))
