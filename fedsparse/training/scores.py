"""The scores that a model gives."""

import torch
from torch import Tensor

from fedsparse.training.evaluation import Fetch, evaluation_batch, fetched
from fedsparse.vector import FlatModel


@torch.no_grad()
def scores_of(model: FlatModel, fetch: Fetch, samples: int) -> Tensor:
    """The outputs of ``model`` in eval mode over positions ``0 <= i < samples``, shape ``(samples, ...)``."""
    module, device = model.module.eval(), model.vector.device
    scores = torch.empty(0)
    for part in torch.arange(samples, device=device).split(evaluation_batch(fetch, samples, device)):
        outputs = module(fetched(fetch, part)[0])
        scores = scores if len(scores) else outputs.new_empty((samples, *outputs.shape[1:]))
        scores[part] = outputs
    return scores
