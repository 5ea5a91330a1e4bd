"""What a local optimizer remembers, as flat vectors, so that a client can keep it until its next round.

AdamW has two moments of each weight and counts its steps; SGD has its momentum.
"""

import numpy as np
import torch
from torch import Tensor

from fedsparse.vector import FlatModel

Memory = dict[str, Tensor | np.ndarray]
"""By name: float32 ``(layout.parameters,)`` for numbers of each weight, ``(entries,)`` for a number of each entry."""


def moments_of(optimizer: torch.optim.Optimizer, model: FlatModel) -> Memory:
    """Copies of all tensors in the state of ``optimizer``, with 0 where an entry has none."""
    pairs = [(optimizer.state.get(p, {}), p) for p in model.module.parameters() if p.requires_grad]
    names = {name for state, _ in pairs for name, value in state.items() if isinstance(value, Tensor)}
    found: Memory = {}
    for name in sorted(names):
        single = all(state[name].dim() == 0 for state, _ in pairs if name in state)
        tensors = [state.get(name, torch.zeros(() if single else p.shape)) for state, p in pairs]
        found[name] = torch.cat([t.detach().reshape(-1).to(model.vector) for t in tensors])
    return found


def restore(optimizer: torch.optim.Optimizer, model: FlatModel, memory: Memory, mask: Tensor | None) -> None:
    """Put what :func:`moments_of` gave into a new optimizer of the same parameters.

    Args:
        mask: bool ``(layout.parameters,)``; weights that do not exist have no moments, which would move them.
    """
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    for name, kept in memory.items():
        flat = (kept.clone() if isinstance(kept, Tensor) else torch.tensor(kept)).to(model.vector.device)
        many = len(flat) > len(parameters)
        parts = model.views(flat if mask is None else flat * mask) if many else list(flat)
        for p, part in zip(parameters, parts, strict=True):
            optimizer.state[p][name] = part
