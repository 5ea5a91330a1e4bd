"""One-shot pruning of a trained model, layer after layer, and recalibration of its BatchNorm statistics."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.sparsity import sparsegpt
from fedsparse.sparsity.topology import weight_layers
from fedsparse.vector import Layout

Pruner = Literal["sparsegpt", "magnitude"]
Prunable = nn.Conv2d | nn.Linear

CHUNK = 2**24
"""Elements of an unfolded input that are held at once, in float64."""


@torch.no_grad()
def prune_model(
    model: nn.Module,
    batches: Sequence[Tensor],
    sparsity: float = 0.5,
    *,
    nm: tuple[int, int] | None = None,
    counts: Mapping[str, int] | None = None,
    method: Pruner = "sparsegpt",
    dense_layers: Sequence[str] = ("first", "last"),
) -> dict[str, Tensor]:
    """Prune the Conv2d and Linear layers of ``model`` in place, in the order in which they run.

    Each layer is calibrated in eval mode on what the layers before it, already pruned, give it.

    Args:
        batches: inputs of the model, on its device; gone through once a layer.
        sparsity: of every pruned layer.
        nm: keep N of every M consecutive input channels instead, at each kernel position: the layout that hardware
            reads. Where fewer than M channels are left (depthwise convolutions), N of those.
        counts: how many weights a layer keeps, by parameter name, where that differs from ``sparsity``.
        method: ``sparsegpt``, or ``magnitude`` as the baseline.
        dense_layers: as for ``weight_layers``.

    Returns:
        By parameter name, the mask of every layer pruned, bool, shaped as its weight. Layers of other kinds, and those
        that the model does not run as modules of their own (inside attention), are left alone and not in it.

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
        for name, layer in _in_order(model, batches[0], dense_layers).items():
            kept = (counts or {}).get(name, round((1 - sparsity) * layer.weight.numel()))
            hessian = layer_hessian(model, layer, batches, nm[1] if nm else 1) if method == "sparsegpt" else None
            masks[name] = prune_layer(layer, hessian, kept, nm)
    return masks


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; in the end every module is back in its own, whatever was raised."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@torch.no_grad()
def prune_layer(layer: Prunable, hessian: Tensor | None, kept: int, nm: tuple[int, int] | None = None) -> Tensor:
    """Prune one layer in place, by SparseGPT if there is a Hessian, else by magnitude; returns its mask."""
    matrix = weight_matrix(layer, nm[1] if nm else 1)
    if hessian is None:
        new, mask = sparsegpt.magnitude(matrix, kept, nm)
    else:
        new, mask = sparsegpt.sparsegpt(matrix, hessian, kept, nm)
    layer.weight.copy_(_as_weight(layer, new))
    return _as_weight(layer, mask)


@torch.no_grad()
def layer_hessian(model: nn.Module, layer: Prunable, batches: Sequence[Tensor], multiple: int = 1) -> Tensor:
    """Mean of X X^T over the inputs that ``layer`` meets while ``model`` runs: float64, shape ``(groups, C, C)``."""
    hessian, samples = torch.zeros((), dtype=torch.float64, device=layer.weight.device), 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal hessian, samples
        rows = inputs[0] if isinstance(layer, nn.Conv2d) else inputs[0].reshape(-1, inputs[0].shape[-1])
        at_once = max(1, CHUNK // (prod(layer.weight.shape[2:]) * rows[0].numel()))
        for part in rows.split(at_once):
            X = input_matrix(layer, part, multiple)
            samples += X.shape[2]
            hessian = hessian * ((samples - X.shape[2]) / samples) + X @ X.mT / samples

    handle = layer.register_forward_pre_hook(add)
    try:
        for batch in batches:
            model(batch)
    finally:
        handle.remove()
    return hessian


def layer_error(before: Tensor, after: Tensor, hessian: Tensor) -> float:
    """Relative squared error of a layer's outputs, ``|(W' - W) X|^2 / |W X|^2``, from two weight matrices and H."""
    change = after.double() - before.double()
    energy = ((before.double() @ hessian) * before.double()).sum()
    return float(((change @ hessian) * change).sum() / energy)


def weight_matrix(layer: Prunable, multiple: int = 1) -> Tensor:
    """A layer's weight as ``(groups, outputs, C)``; columns run over input channels first, then over kernel positions.

    Channels are padded with zeros to a multiple of ``multiple``, so that no M columns straddle two kernel positions.
    """
    weight = layer.weight.detach()
    inputs = weight.shape[1]
    matrix = weight.reshape(_groups(layer), -1, inputs, prod(weight.shape[2:]))
    return F.pad(matrix.transpose(2, 3), (0, -inputs % multiple)).flatten(2)


def input_matrix(layer: Prunable, inputs: Tensor, multiple: int = 1) -> Tensor:
    """A layer's inputs, float64 ``(groups, C, samples)``; ``weight_matrix @ input_matrix`` is its output less bias."""
    if isinstance(layer, nn.Linear):
        columns = inputs.reshape(-1, 1, layer.in_features, 1, 1)
    else:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
        size = (layer.kernel_size[0], layer.kernel_size[1])
        unfolded = F.unfold(padded, size, dilation=layer.dilation, stride=layer.stride)
        columns = unfolded.view(len(inputs), layer.groups, layer.in_channels // layer.groups, prod(size), -1)
    by_group = columns.double().permute(1, 3, 2, 0, 4)
    return F.pad(by_group, (0, 0, 0, 0, 0, -by_group.shape[2] % multiple)).flatten(3).flatten(1, 2)


@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Measure the running statistics of every BatchNorm layer anew, in place, as the mean over ``batches`` by size.

    Pruning shifts what BatchNorm layers see, and their old statistics then cost much of the accuracy. A batch of one
    sample has no variance, and is left out. One client's data may be skewed: average what many of them measure.
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


def _groups(layer: Prunable) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _as_weight(layer: Prunable, matrix: Tensor) -> Tensor:
    """The inverse of ``weight_matrix``."""
    shape = layer.weight.shape
    by_position = matrix.unflatten(2, (prod(shape[2:]), -1))[..., : shape[1]]
    return by_position.transpose(2, 3).reshape(shape)


def _in_order(model: nn.Module, batch: Tensor, dense_layers: Sequence[str]) -> dict[str, Prunable]:
    """The layers to prune, by parameter name, in the order in which they first run."""
    names = [layer.name for layer in weight_layers(model, Layout.of(model), dense_layers) if not layer.dense]
    modules = dict(model.named_modules())
    found: dict[str, Prunable] = {}
    handles = []
    for name in names:
        module = modules.get(name.rpartition(".")[0])
        if isinstance(module, nn.Conv2d | nn.Linear):

            def note(_module: nn.Module, _inputs: object, name: str = name, layer: Prunable = module) -> None:
                found.setdefault(name, layer)

            handles.append(module.register_forward_pre_hook(note))
    model(batch)
    for handle in handles:
        handle.remove()
    return found
