"""The scores that a model gives."""

import torch
from torch import Tensor

from fedsparse.training.loop import Fetch, evaluation_batch, fetched
from fedsparse.vector import FlatModel


@torch.no_grad()
def scores_of(model: FlatModel, fetch: Fetch, samples: int) -> Tensor:
    """The outputs of ``model`` in eval mode over positions ``0 <= i < samples``, shape ``(samples, ...)``."""
    module, device = model.module.eval(), model.vector.device
    parts = torch.arange(samples, device=device).split(evaluation_batch(fetch, samples, device))
    return torch.cat([module(fetched(fetch, part)[0]) for part in parts])
