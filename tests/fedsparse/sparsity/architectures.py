"""Random architectures, and layouts made of them."""

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from fedsparse.aggregation.mean import Votes
from fedsparse.sparsity import Layer, Topology, weight_layers
from fedsparse.vector import Layout

torch.set_num_threads(1)
QUICK = settings(deadline=None, max_examples=25)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def layers_of(model: nn.Module, dense_layers=("first", "last")) -> tuple[tuple[Layer, ...], int]:
    layout = Layout.of(model)
    return weight_layers(model, layout, dense_layers), layout.parameters


def topology_of(model: nn.Module, exists) -> Topology:
    """The topology, without dense layers, of the weights where ``exists`` is True: one bool, or one for each weight."""
    full = Topology.full(*layers_of(model, []))
    mask = full.mask.clone()
    mask[full.prunable] = torch.as_tensor(exists)
    return Topology(full.layers, mask)


def output_error(before: Tensor, after: Tensor, hessian: Tensor) -> float:
    """Relative squared error of a layer's outputs, ``|(W' - W) X|^2 / |W X|^2``, from two weight matrices and H."""
    change = after.double() - before.double()
    energy = ((before.double() @ hessian) * before.double()).sum()
    return float(((change @ hessian) * change).sum() / energy)


def votes_of(clients) -> Votes:
    """``sum n m w`` and ``sum n m`` over clients (weights, mask, samples): the definition."""
    total = sum(samples * (mask * weights).double() for weights, mask, samples in clients)
    return Votes(total, sum(samples * mask.double() for _, mask, samples in clients))


@st.composite
def architectures(draw) -> nn.Module:
    """Convolutions (some depthwise or grouped), norms and linear layers, of random widths."""
    channels, modules = draw(st.integers(1, 4)), list[nn.Module]()
    for _ in range(draw(st.integers(1, 3))):
        out, kernel = channels * draw(st.integers(1, 3)), draw(st.sampled_from([1, 3]))
        groups = draw(st.sampled_from([1, channels]))
        modules += [nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups), nn.BatchNorm2d(out)]
        channels = out
    modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(draw(st.integers(0, 2))):
        out = draw(st.integers(1, 40))
        modules.append(nn.Linear(channels, out))
        channels = out
    return nn.Sequential(*modules, nn.Linear(channels, 10))


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )
