"""How far a network is from its teacher where both say how the wrong classes compare.

FedNTD: Lee et al. 2022, "Preservation of the Global Knowledge by Not-True Distillation in Federated Learning", section
3.1. What a client knows of classes that it does not hold stays, and the true class is learnt from the label alone. With
a temperature T other than 1, which is the paper's, the paper's term is T^2 times smaller.
"""

import torch
from torch import Tensor

from fedsparse.distillation.softened import softened


def not_true(outputs: Tensor, taught: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """``softened`` of the scores without that of the true class.

    Args:
        outputs, taught: scores, float, shape ``(*targets.shape, classes)``.
        targets: the true classes, int64.
    """
    wrong = torch.arange(outputs.shape[-1], device=targets.device) != targets.unsqueeze(-1)
    shape = (targets.numel(), outputs.shape[-1] - 1)
    return softened(outputs[wrong].view(shape), taught[wrong].view(shape), targets, temperature)
