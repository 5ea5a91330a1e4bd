"""How far a network's softened predictions are from its teacher's.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2. With the global model of the
round as the teacher it is the term of FedGKD (Yao et al. 2021, "FedGKD: Towards Heterogeneous Federated Learning via
Global Knowledge Distillation", equation 4, with a buffer of one model).
"""

from torch import Tensor
from torch.nn import functional as F


def softened(outputs: Tensor, taught: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """The mean over predictions of ``T^2 KL(softmax(taught / T) || softmax(outputs / T))``.

    The square of the temperature T keeps the size of the gradient where T is large.

    Args:
        outputs, taught: scores of the network and of its teacher, float, shape ``(..., classes)``.
        targets: not looked at.
    """
    ours, theirs = (F.log_softmax(scores.flatten(0, -2) / temperature, 1) for scores in (outputs, taught))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
