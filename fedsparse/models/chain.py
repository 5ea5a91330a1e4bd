"""A network as a chain: modules of which each takes what the one before it gives."""

from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedsparse.models.gpt2 import NextToken


def chain_of(network: nn.Module) -> list[nn.Module]:
    """The modules of the chain, which are the network's own.

    Raises:
        ValueError: this file does not know the network as a chain.
    """
    parts: Any = network  # torchvision's classes, by name because its import takes a second
    match type(network).__name__:
        case "Sequential":
            return [*parts]
        case "ResNet":
            stem = nn.Sequential(parts.conv1, parts.bn1, parts.relu, parts.maxpool)
            blocks = [block for stage in (parts.layer1, parts.layer2, parts.layer3, parts.layer4) for block in stage]
            return [stem, *blocks, nn.Sequential(parts.avgpool, nn.Flatten(), parts.fc)]
        case "VGG":
            return [*parts.features, parts.avgpool, nn.Flatten(), parts.classifier]
        case "GPT2":
            return [*parts.chain()]
        case "MobileNetV2":
            return [*parts.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), parts.classifier]
    raise ValueError("is not a chain of layers")


def has_weights(module: nn.Module) -> bool:
    """Whether it has a convolution or a linear layer."""
    return any(isinstance(part, nn.Conv2d | nn.Linear | NextToken) for part in module.modules())


def multiply_adds(module: nn.Module, inputs: Tensor) -> tuple[Tensor, int]:
    """The outputs for one sample, ``(1, ...)``, and the multiplications and additions of its products, in pairs."""
    from torch.utils.flop_counter import FlopCounterMode  # imports much of torch

    # The counter does not know the fused attention of CPUs. It counts all pairs of positions, the masked ones too.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        outputs: Tensor = module(inputs)
    return outputs, counter.get_total_flops() // 2
