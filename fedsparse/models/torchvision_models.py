"""torchvision's own networks, with the usual changes for images of 28 to 32 pixels.

torchvision's networks are for images of 224 pixels, and halve the resolution five times. Here the stem keeps the
resolution, as in the CIFAR experiments of the ResNet paper (He et al. 2016, section 4.2) and in most later work.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from fedsparse.models.cnn import Shape, scaled


def resnet18(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1 and no initial pooling (11.2M weights)."""
    return _resnet("resnet18", input_shape, classes, norm, width)


def resnet50(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """ResNet-50 with a 3x3 stem of stride 1 and no initial pooling (23.5M weights)."""
    return _resnet("resnet50", input_shape, classes, norm, width)


def vgg11(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """VGG-11 with normalisation and one linear layer behind the convolutions (9.2M weights)."""
    return _vgg("vgg11_bn", input_shape, classes, norm, width)


def vgg16(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """VGG-16 with normalisation and one linear layer behind the convolutions (14.7M weights)."""
    return _vgg("vgg16_bn", input_shape, classes, norm, width)


def mobilenet_v2(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """MobileNetV2 with strides 1 in its first convolution and its second stage (2.2M weights)."""
    model = _torchvision("mobilenet_v2", num_classes=classes, norm_layer=_norm_layer(norm))
    stem = model.features[0][0]
    model.features[0][0] = nn.Conv2d(input_shape[0], stem.out_channels, 3, padding=1, bias=False)
    model.features[2].conv[1][0].stride = (1, 1)
    return _slimmed(model, width, norm)


def _torchvision(name: str, **settings: Any) -> Any:
    """torchvision's network of that name; imported here, because the import takes a second and most runs need none."""
    from torchvision import models

    return getattr(models, name)(**settings)


def _resnet(name: str, input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    model = _torchvision(name, num_classes=classes, norm_layer=_norm_layer(norm))
    model.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return _slimmed(model, width, norm)


def _vgg(name: str, input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    model = _torchvision(name, num_classes=1)  # its three large linear layers are replaced below
    for i, layer in enumerate(model.features):
        if isinstance(layer, nn.BatchNorm2d):
            model.features[i] = _norm_layer(norm)(layer.num_features)
        if isinstance(layer, nn.MaxPool2d):  # so that 28 pixels end in 2x2, because BatchNorm needs several values
            layer.ceil_mode = True
    stem = model.features[0]
    model.features[0] = nn.Conv2d(input_shape[0], stem.out_channels, 3, padding=1)
    model.features[-1] = nn.AdaptiveMaxPool2d(1)  # instead of the fifth halving, for which 28 pixels are too few
    model.avgpool = nn.Identity()
    model.classifier = nn.Linear(512, classes)
    return _slimmed(model, width, norm)


def _slimmed(model: nn.Module, width: float, norm: str) -> nn.Module:
    """``model`` with ``width`` times the hidden channels; unchanged for 1.0."""
    if width == 1.0:
        return model
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    first, last = layers[0][0], layers[-1][0]
    for name, old in [*model.named_modules()]:
        new: nn.Module
        if isinstance(old, nn.Conv2d):
            inputs = old.in_channels if name == first else scaled(old.in_channels, width)
            groups = inputs if old.groups == old.in_channels > 1 else old.groups
            shape = (inputs, scaled(old.out_channels, width), old.kernel_size)
            new = nn.Conv2d(*shape, old.stride, old.padding, groups=groups, bias=old.bias is not None)  # type: ignore
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(old, nn.Linear):
            outputs = old.out_features if name == last else scaled(old.out_features, width)
            new = nn.Linear(scaled(old.in_features, width), outputs)
        elif isinstance(old, nn.BatchNorm2d | nn.GroupNorm):
            channels = old.num_features if isinstance(old, nn.BatchNorm2d) else old.num_channels
            new = _norm_layer(norm)(scaled(channels, width))
        else:
            continue
        model.set_submodule(name, new)
    return model


def _norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """BatchNorm, or GroupNorm of at most 32 groups (Hsieh et al. 2020, for heterogeneous clients)."""
    if norm == "batch":
        return nn.BatchNorm2d
    return lambda channels: nn.GroupNorm(math.gcd(32, channels), channels)
