"""The global weights as the clients compute with them: quantised layers as levels and steps, the rest in float32.

The server keeps float weights w, to which it adds the clients' updates, and sends their quantised values Q(w). Clients
train from Q(w), see ``spread``. Because Q(Q(w)) is Q(w), but for the last bits of a step, a client computes its first
step with the weights of one that was sent w.
"""

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression import wire
from fedsparse.compression.few_bits import coded_levels
from fedsparse.compression.finite import NonFiniteError
from fedsparse.compression.values import F32
from fedsparse.quantisation.quantised_layers import few_bits_layers
from fedsparse.sparsity.compact import Compact
from fedsparse.vector import FlatModel


@torch.no_grad()
def few_bits_payload(model: FlatModel, weights: Tensor, compact: Compact, round: int) -> bytes:
    """A payload of the existing ``weights``.

    Args:
        model: with quantised layers; it holds ``weights`` afterwards.
        weights: float32, shape ``(model.layout.size,)``.
        compact: of the topology.

    Raises:
        NonFiniteError: NaN or infinity in the weights.
    """
    for entry in model.layout.entries:
        if not weights[entry.slice].isfinite().all():
            raise NonFiniteError(entry.name)
    model.vector.copy_(weights)
    quantised = few_bits_layers(model.module)
    numbers, steps, bits = weights.clone(), dict[str, np.ndarray](), dict[str, int]()
    for entry in model.layout.trainable:
        if entry.name in quantised:
            weight, quantiser = quantised[entry.name]
            levels = quantiser.levels(weight)
            numbers[entry.slice] = levels.whole.flatten().cpu()
            steps[entry.name], bits[entry.name] = levels.step.flatten().cpu().numpy(), quantiser.bits
    short, segments, done = compact.gather(numbers).numpy(), list[wire.Coded](), 0
    for entry in compact.layout.trainable:
        if entry.name in steps:
            if entry.start > done:
                segments.append(wire.Coded.dense(short[done : entry.start], F32()))
            rows = steps[entry.name].size > 1
            counts = np.array(entry.row_sizes if rows else [entry.size])
            codec, body = coded_levels(short[entry.slice].astype(np.int8), steps[entry.name], bits[entry.name])
            grouping = wire.BY_ROW if rows else wire.WHOLE
            segments.append(wire.Coded(entry.size, None, codec, body, counts, grouping))
            done = entry.start + entry.size
    if done < len(short):
        segments.append(wire.Coded.dense(short[done:], F32()))
    return wire.encode(compact.layout, round, segments)
