"""The classifiers of one network learn from one another.

DepthFL: Kim et al. 2023, "DepthFL: Depthwise Federated Learning for Heterogeneous Clients", section 3, "self
distillation". How the weight rises is from the authors' code, where it takes 300 rounds of 1000.
"""

import math
from itertools import permutations

from torch import Tensor

from fedsparse.distillation.softened import softened


def mutual(scores: Tensor, targets: Tensor) -> Tensor | float:
    """The sum over classifiers i of the mean over the others j of ``KL(softmax(scores[j]) || softmax(scores[i]))``.

    Only i learns: there is no gradient through ``scores[j]``. A single classifier has no others, and the sum is 0.

    Args:
        scores: of each classifier, float, shape ``(classifiers, *targets.shape, classes)``.
        targets: not looked at.
    """
    pairs = permutations(scores, 2)
    return sum(softened(ours, others.detach(), targets, 1.0) for ours, others in pairs) / max(len(scores) - 1, 1)


def risen(round: int, rounds: int) -> float:
    """How much of its weight the term has in a round, from 1: from exp(-5) up to 1 after so many rounds."""
    return math.exp(-5 * (1 - min((round - 1) / rounds, 1.0)) ** 2)
