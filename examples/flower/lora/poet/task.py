"""A frozen GPT with low-rank adapters (Hu et al. 2022, "LoRA"), which alone travel, and Shakespeare to train them on.

The GPT has random weights here, because the example downloads nothing: load your own in `model`.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.models.gpt2 import GPT2
from fedsparse.partitions.shakespeare import load
from fedsparse.partitions.text import Text


class LoRA(nn.Module):
    """A frozen linear layer W, and beside it B A of a small rank: x -> W x + B A x."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, frozen.in_features) / frozen.in_features**0.5)  # (r, in)
        self.b = nn.Parameter(torch.zeros(frozen.out_features, rank))  # (out, r)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + x @ self.a.T @ self.b.T


@cache
def text() -> Text:
    return load(Path(), "char", 64)


def model(rank: int) -> nn.Module:
    torch.manual_seed(0)
    gpt = GPT2(text().classes, 64, blocks=2, heads=4, units=128).requires_grad_(False)
    for module in list(gpt.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                setattr(module, name, LoRA(layer, rank))
    return gpt


def adapters(gpt: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in gpt.named_parameters() if weight.requires_grad}


def train(gpt: nn.Module, partition: int, partitions: int, steps: int, lr: float) -> float:
    """Train the adapters on this client's windows; returns the mean loss."""
    windows, losses = torch.arange(text().train_size)[partition::partitions], []
    optimizer = torch.optim.AdamW(adapters(gpt).values(), lr)
    for _ in range(steps):
        inputs, targets = text().fetch(windows)(torch.randint(len(windows), (16,)))
        loss = F.cross_entropy(gpt(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def loss(gpt: nn.Module) -> float:
    """The mean loss on 200 windows of the test text."""
    inputs, targets = text().test_batch(torch.arange(200))
    return F.cross_entropy(gpt(inputs).flatten(0, 1), targets.flatten()).item()
