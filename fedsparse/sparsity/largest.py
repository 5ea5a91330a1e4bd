"""Masks of the largest scores. Of equal scores the lower index wins, so that every device makes the same mask."""

import torch
from torch import Tensor

from fedsparse.compression.topk import largest


def largest_mask(scores: Tensor, candidates: Tensor, k: int) -> Tensor:
    """The ``k`` largest scores among the candidates; NaN counts as the smallest.

    Args:
        scores: float, of any shape.
        candidates: bool, of the same shape, at least ``k`` True.

    Returns:
        bool, of the same shape, ``k`` True.
    """
    mask = torch.zeros(candidates.numel(), dtype=torch.bool, device=candidates.device)
    if k:
        index = candidates.flatten().nonzero().squeeze(1)
        among = scores.flatten()[index].nan_to_num(nan=torch.finfo(scores.dtype).min)
        mask[index[largest(among, k)]] = True
    return mask.view(candidates.shape)


def largest_of_each_row(scores: Tensor, n: int) -> Tensor:
    """The ``n`` largest scores along the last dimension: bool, shape of ``scores``."""
    best = scores.argsort(dim=-1, descending=True, stable=True)[..., :n]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)


def within(nm: tuple[int, int], channels: int) -> tuple[int, int]:
    """N:M for a layer with so many input channels: where M is more, all of them are one group, of which N stay."""
    return min(nm[0], channels), min(nm[1], channels)
