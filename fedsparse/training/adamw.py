"""AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2), as it trains transformers.

The decay pulls the weights of layers only. It leaves out biases, normalisation and embeddings, as GPT-2's successors
and nanoGPT do.
"""

from collections.abc import Sequence

import torch
from torch import nn

BETA1 = 0.9
EPSILON = 1e-8


def adamw(
    parameters: Sequence[nn.Parameter],
    lr: float,
    beta2: float,
    weight_decay: float,
    decays: Sequence[bool],
    fused: bool,
) -> torch.optim.Optimizer:
    """torch's AdamW; its decay acts on the parameters for which ``decays`` is true."""
    groups = [
        {"params": [p for p, d in zip(parameters, decays, strict=True) if d == on], "weight_decay": weight_decay * on}
        for on in (True, False)
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr, (BETA1, beta2), EPSILON, fused=fused)


def decaying(module: nn.Module) -> list[bool]:
    """Whether each trainable parameter of ``module`` is a matrix or kernel that is no embedding, in layout order."""
    tables = {m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
    return [p.dim() > 1 and p not in tables for p in module.parameters() if p.requires_grad]
