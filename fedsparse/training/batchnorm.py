"""What BatchNorm asks of averages, and of batches, because it normalises each sample by all those of its batch."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.plugins import is_own
from fedsparse.vector import Entry, Layout


def running_variances(layout: Layout) -> list[Entry]:
    """The buffers that are BatchNorm's running variances."""
    return [e for e in layout.entries if e.start >= layout.parameters and e.name.endswith("running_var")]


def clamp_variances_(weights: Tensor, layout: Layout) -> None:
    """Set negative running variances to 0, in place, because a mean of differences may round to slightly below 0."""
    for entry in running_variances(layout):
        weights[entry.slice].clamp_(min=0)


def trains_batchnorm(module: nn.Module) -> bool:
    """Whether ``module``, in the mode that it is in, has a BatchNorm layer that normalises by its batch."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in module.modules())


def batches(order: Tensor, size: int, joins: bool) -> list[Tensor]:
    """``order`` in batches of ``size`` samples, the last of which may be smaller.

    Args:
        order: int64 ``(samples,)``.
        size: samples of a batch.
        joins: a last batch of one sample joins the batch before it, because BatchNorm may have one value a channel
            then, whose variance is 0. PyTorch's usual ``drop_last`` would lose up to ``size - 1`` samples.
    """
    parts = list(order.split(size))
    if joins and ends_alone(len(order), size):
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def ends_alone(samples: int, size: int) -> bool:
    """Whether the last of several batches of ``size`` has one sample alone."""
    return samples > size > 1 and samples % size == 1


def refuse_pieces(config: Config, module: nn.Module) -> None:
    """See that no batch is trained in pieces where that is another algorithm.

    Raises:
        ConfigError: BatchNorm would normalise each piece by itself.
    """
    if config.accumulate > 1 and trains_batchnorm(module):
        raise ConfigError(
            f"accumulate = {config.accumulate}: BatchNorm would normalise every piece of a batch by itself, which is "
            "another algorithm; use --norm group, or save memory by --recompute or a smaller --batch-size"
        )


def check_batches(config: Config, module: nn.Module, input_shape: Sequence[int], sizes: Sequence[int]) -> None:
    """Find out before a run whether BatchNorm can train on all of its batches.

    Args:
        module: on the meta device or the CPU; in training mode on return.
        input_shape: the shape of one input.
        sizes: how many samples each client trains on.

    Raises:
        ConfigError: one line with the cure.
    """
    if not trains_batchnorm(module.train()):
        return
    refuse_pieces(config, module)
    if config.batch_size > 1 and min(sizes) > 1:
        return
    try:
        device = next(module.parameters()).device
        with suppress(RuntimeError):  # of a user's own model for other inputs than float32
            module(torch.zeros(1, *input_shape, device=device))
    except ValueError:
        what = f"batch-size = {config.batch_size}"
        cure = "raise it"
        if config.batch_size > 1:
            what = f"client {int(np.argmin(sizes))} trains on 1 sample"
            cure = "raise min-samples" + " or lower holdout" * config.eval_clients
        shape = "x".join(map(str, input_shape))
        raise ConfigError(
            f"{what}: BatchNorm needs 2 samples of {shape} at least, since model = {config.model} leaves one value a "
            f"channel of each; {cure}" + ", or use --norm group" * (not is_own(config.model))
        ) from None


def joined(config: Config, module: nn.Module, sizes: Sequence[int]) -> str:
    """One line for the start of a run about last batches that are joined; empty where none is."""
    alone = sum(ends_alone(samples, config.batch_size) for samples in sizes)
    if not alone or not trains_batchnorm(module.train()):
        return ""
    of = f"of {alone} of {len(sizes)} clients " if len(sizes) > 1 else ""
    return f"the last batch {of}would be a single sample: it joins the batch before it, because of BatchNorm"
