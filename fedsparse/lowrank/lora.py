"""LoRA: frozen weights, and a trained difference of low rank beside them (Hu et al. 2022, "LoRA: Low-rank adaptation of
large language models", section 4.1).

W x + (alpha / r) B A x, with A (r, n) random and B (m, r) zero at the start, so that training begins at W. Of a
convolution, A is a convolution of the same kernel to r channels and B a pointwise one, as in the package peft.

With A frozen (Sun et al. 2024, "Improving LoRA in privacy-preserving federated learning", FFA-LoRA), the mean of the
clients' products B A is the product of the means, and half as much travels.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from fedsparse.lowrank.factorable_layers import Dense, factorable
from fedsparse.lowrank.svd import truncated

KERNEL = ("kernel_size", "stride", "padding", "dilation", "padding_mode")


class LoRA(nn.Module):
    """The layer ``old``, frozen, with an adapter.

    Args:
        old: a linear or convolution layer.
        rank: r, at least 1.
        alpha: the scale of the adapter is alpha / r.
    """

    def __init__(self, old: Dense, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = old, alpha / rank
        self.down: nn.Linear | nn.Conv2d
        self.up: nn.Linear | nn.Conv2d
        if isinstance(old, nn.Linear):
            self.down = nn.Linear(old.in_features, rank, bias=False)
            self.up = nn.Linear(rank, old.out_features, bias=False)
        else:
            kernel: Any = {name: getattr(old, name) for name in KERNEL}
            self.down = nn.Conv2d(old.in_channels, rank, bias=False, **kernel)
            self.up = nn.Conv2d(rank, old.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return out

    @property
    def matrix(self) -> Tensor:
        """The adapter's product (alpha / r) B A, as a matrix."""
        return self.scale * self.up.weight.flatten(1) @ self.down.weight.flatten(1)

    @property
    def weight(self) -> Tensor:
        """The weights of one layer that computes the same."""
        return self.base.weight + self.matrix.view_as(self.base.weight)

    @torch.no_grad()
    def set_matrix_(self, matrix: Tensor) -> None:
        """Make the adapter the truncated SVD of a matrix, with factors of the same singular values.

        Where a singular value is 0, A keeps its old row and B gets a column of 0, as at LoRA's start: with 0 in both,
        neither would have a gradient again.
        """
        u, s, v = truncated(matrix, len(self.down.weight))
        root, is_there = (s / self.scale).sqrt(), s > 1e-6 * s[0]
        self.up.weight.copy_((u * root * is_there).view_as(self.up.weight))
        rows = torch.where(is_there[:, None], (v * root).T, self.down.weight.flatten(1))
        self.down.weight.copy_(rows.view_as(self.down.weight))

    def take_dense(self, state: dict[str, Tensor], name: str) -> None:
        """Take the frozen weights from a state dict that has the old layer; see ``models.initial``."""
        if f"{name}.weight" in state:
            for key in self.base.state_dict():
                state[f"{name}.base.{key}"] = state.pop(f"{name}.{key}")
            state |= {f"{name}.{key}": value for key, value in self.state_dict().items() if not key.startswith("base.")}

    def give_dense(self, state: dict[str, Tensor], name: str) -> None:
        """Put the old layer with the merged weights into a state dict that has the adapter."""
        own = {key: state.pop(f"{name}.{key}") for key in self.state_dict()}
        state |= {f"{name}.{key.removeprefix('base.')}": own[key] for key in own if key.startswith("base.")}
        state[f"{name}.weight"] = self.weight.detach()


def adapt_(
    model: nn.Module, patterns: Sequence[str], rank: int, alpha: float, seed: int, *, freeze_down: bool = False
) -> nn.Module:
    """Freeze the network, and put adapters beside the layers whose names fit one of the patterns.

    Args:
        patterns: such as ``*``, ``h.*.attn.c_attn``.
        seed: of the adapters; torch's global random state does not change.
        freeze_down: train B alone.

    Raises:
        ValueError: no layer fits.
    """
    layers = factorable(model, [])
    chosen = {name: layer for name, layer in layers.items() if any(fnmatchcase(name, p) for p in patterns)}
    if not chosen:
        raise ValueError(f"lora-layers: no layer fits {', '.join(patterns)}; there are {', '.join(layers)}")
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, layer in chosen.items():
            adapter = LoRA(layer, rank, alpha)
            adapter.down.requires_grad_(not freeze_down)
            model.set_submodule(name, adapter)
    return model
