"""One-shot pruning of a trained model, layer after layer, and recalibration of its BatchNorm statistics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.sparsity import sparsegpt
from fedsparse.sparsity.largest import within
from fedsparse.sparsity.topology import weight_layers
from fedsparse.vector import Layout

Pruner = Literal["sparsegpt", "magnitude"]
Prunable = nn.Conv2d | nn.Linear

CHUNK = 2**24
"""The most elements of an unfolded input, in float64, that are in memory at once."""


@torch.no_grad()
def prune_model(
    model: nn.Module,
    batches: Sequence[Tensor],
    sparsity: float = 0.5,
    *,
    nm: tuple[int, int] | None = None,
    method: Pruner = "sparsegpt",
    dense_layers: Sequence[str] = ("first", "last"),
) -> dict[str, Tensor]:
    """Prune the Conv2d and Linear layers of ``model`` in place, in the order in which they run.

    Each layer is calibrated in eval mode on the outputs of the layers before it, which are pruned already.

    Args:
        batches: inputs of the model, on its device. The model runs on all of them once for each layer.
        sparsity: of every pruned layer.
        nm: keep N of every M consecutive input channels instead, at each kernel position, because that is the layout
            that hardware reads. Of a last group with fewer than M channels (depthwise convolutions), keep N as well; of
            a layer with fewer than M channels, N.
        method: ``sparsegpt``, or ``magnitude`` as the baseline.
        dense_layers: as for ``weight_layers``.

    Returns:
        The mask of every pruned layer by parameter name, bool, shape of its weight. Layers of other kinds, and layers
        that the model does not run as a module (inside attention), are not pruned and have no mask.

    Raises:
        ValueError: a sparsity outside [0, 1], an impossible N:M, no batches, or inputs that are not finite.
    """
    if nm is None and not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity = {sparsity}: should be within 0 and 1")
    if nm is not None and not 0 <= nm[0] <= nm[1] > 0:
        raise ValueError(f"{nm[0]}:{nm[1]} sparsity: should keep N of every M weights, N at most M")
    if not batches:
        raise ValueError("pruning needs at least one calibration batch")
    masks = {}
    with _evaluating(model):
        for name, module in _in_order(model, batches[0], dense_layers).items():
            kept = round((1 - sparsity) * module.weight.numel())
            hessian = layer_hessian(model, module, batches, nm[1] if nm else 1) if method == "sparsegpt" else None
            masks[name] = prune_layer(module, hessian, kept, nm)
    return masks


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the context. At its end, also after an exception, every module gets its old mode back."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@torch.no_grad()
def prune_layer(module: Prunable, hessian: Tensor | None, kept: int, nm: tuple[int, int] | None = None) -> Tensor:
    """Prune one layer in place; returns its mask, bool, shape of its weight.

    Args:
        hessian: None for pruning by magnitude, else from ``layer_hessian``, with the M of ``nm`` as ``multiple``.
        kept: how many weights stay; without effect when ``nm`` is given.
        nm: as for ``prune_model``.
    """
    nm = within(nm, module.weight.shape[1]) if nm else None
    matrix = weight_matrix(module, nm[1] if nm else 1)
    if hessian is None:
        new, mask = sparsegpt.magnitude(matrix, kept, nm)
    else:
        new, mask = sparsegpt.sparsegpt(matrix, hessian, kept, nm)
    module.weight.copy_(_as_weight(module, new))
    return _as_weight(module, mask)


@torch.no_grad()
def layer_hessian(model: nn.Module, module: Prunable, batches: Sequence[Tensor], multiple: int = 1) -> Tensor:
    """Mean of X X^T over the inputs that ``module`` gets while ``model`` runs: float64, shape ``(groups, C, C)``."""
    multiple = min(multiple, module.weight.shape[1])
    hessian, samples = torch.zeros((), dtype=torch.float64, device=module.weight.device), 0

    def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal hessian, samples
        rows = inputs[0] if isinstance(module, nn.Conv2d) else inputs[0].reshape(-1, inputs[0].shape[-1])
        at_once = max(1, CHUNK // (prod(module.weight.shape[2:]) * rows[0].numel()))
        for part in rows.split(at_once):
            X = input_matrix(module, part, multiple)
            samples += X.shape[2]
            hessian = hessian * ((samples - X.shape[2]) / samples) + X @ X.mT / samples

    handle = module.register_forward_pre_hook(add)
    try:
        for batch in batches:
            model(batch)
    finally:
        handle.remove()
    return hessian


def weight_matrix(module: Prunable, multiple: int = 1) -> Tensor:
    """A layer's weight, shape ``(groups, outputs, C)``.

    The columns are all input channels of the first kernel position, then all of the second, and so on. Zeros pad the
    channels to a multiple of ``multiple``, so that M consecutive columns belong to one kernel position.
    """
    weight = module.weight.detach()
    inputs = weight.shape[1]
    matrix = weight.reshape(_groups(module), -1, inputs, prod(weight.shape[2:]))
    return F.pad(matrix.transpose(2, 3), (0, -inputs % multiple)).flatten(2)


def input_matrix(module: Prunable, inputs: Tensor, multiple: int = 1) -> Tensor:
    """A layer's inputs, float64, shape ``(groups, C, samples)``.

    ``weight_matrix @ input_matrix`` is the layer's output without its bias.
    """
    if isinstance(module, nn.Linear):
        columns = inputs.reshape(-1, 1, module.in_features, 1, 1)
    else:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padded = F.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
        size = (module.kernel_size[0], module.kernel_size[1])
        unfolded = F.unfold(padded, size, dilation=module.dilation, stride=module.stride)
        columns = unfolded.view(len(inputs), module.groups, module.in_channels // module.groups, prod(size), -1)
    by_group = columns.double().permute(1, 3, 2, 0, 4)
    return F.pad(by_group, (0, 0, 0, 0, 0, -by_group.shape[2] % multiple)).flatten(3).flatten(1, 2)


@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Measure the running statistics of every BatchNorm layer again, in place, as the mean over ``batches`` by size.

    Pruning shifts the inputs of BatchNorm layers, and the old statistics then cost much of the accuracy. A batch of one
    sample has no variance, and is left out. One client's data may be skewed, so average the statistics of many clients.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta, seen = [norm.momentum for norm in norms], 0
    with _evaluating(model):
        for norm in norms:
            norm.train()
        for batch in batches if norms else ():
            if len(batch) > 1:
                seen += len(batch)
                for norm in norms:
                    norm.momentum = len(batch) / seen
                model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _groups(module: Prunable) -> int:
    return module.groups if isinstance(module, nn.Conv2d) else 1


def _as_weight(module: Prunable, matrix: Tensor) -> Tensor:
    """The inverse of ``weight_matrix``."""
    shape = module.weight.shape
    by_position = matrix.unflatten(2, (prod(shape[2:]), -1))[..., : shape[1]]
    return by_position.transpose(2, 3).reshape(shape)


def _in_order(model: nn.Module, batch: Tensor, dense_layers: Sequence[str]) -> dict[str, Prunable]:
    """The modules to prune, by parameter name, in the order in which they first run."""
    prunable = {layer.name for layer in weight_layers(model, Layout.of(model), dense_layers) if not layer.dense}
    names = {module: f"{path}.weight".lstrip(".") for path, module in model.named_modules()}
    found: dict[str, Prunable] = {}

    def note(module: Prunable, _inputs: object) -> None:
        found.setdefault(names[module], module)

    kinds = (module for module in names if isinstance(module, nn.Conv2d | nn.Linear))
    handles = [module.register_forward_pre_hook(note) for module in kinds if names[module] in prunable]
    model(batch)
    for handle in handles:
        handle.remove()
    return found
