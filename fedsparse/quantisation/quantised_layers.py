"""Convolutions and linear layers that compute with quantised weights and inputs."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fedsparse.quantisation.binary import Binary
from fedsparse.quantisation.inputs import InputRange
from fedsparse.quantisation.lsq import LearnedStep
from fedsparse.quantisation.symmetric import Symmetric
from fedsparse.quantisation.ternary import Ternary
from fedsparse.quantisation.weights import WeightQuantiser
from fedsparse.sparsity import weight_layers
from fedsparse.vector import Layout

QUANTISERS: dict[int, Callable[[int], WeightQuantiser]] = {8: Symmetric, 4: Symmetric, 2: Ternary, 1: Binary}


class FewBits(nn.Module):
    """What quantised layers have in common."""

    weight: Tensor
    of_weights: WeightQuantiser | nn.Identity
    of_inputs: InputRange | nn.Identity

    def take_dense(self, state: dict[str, Tensor], name: str) -> None:
        """Add to the state dict of float layers what this one keeps beside its weights; see ``models.initial``."""
        for key, value in self.state_dict().items():
            if key.startswith(("of_weights.", "of_inputs.")) and f"{name}.{key}" not in state:
                weight = state.get(f"{name}.weight")
                if isinstance(self.of_weights, LearnedStep) and key == "of_weights.step" and weight is not None:
                    value = self.of_weights.initial(weight)
                state[f"{name}.{key}"] = value


class FewBitsConv2d(FewBits, nn.Conv2d):
    """A convolution; ``few_bits`` makes it of another one."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(self.of_inputs(input), self.of_weights(self.weight), self.bias)


class FewBitsLinear(FewBits, nn.Linear):
    """A linear layer; ``few_bits`` makes it of another one."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(self.of_inputs(input), self.of_weights(self.weight), self.bias)


KINDS: dict[type[nn.Module], Any] = {nn.Conv2d: FewBitsConv2d, nn.Linear: FewBitsLinear}


def few_bits(
    network: nn.Module, weight_bits: int, input_bits: int, learned: bool = False, float_layers: Sequence[str] = ()
) -> None:
    """Let the convolutions and linear layers of ``network`` compute with few bits, in place.

    Args:
        weight_bits: 8, 4, 2, 1, or 0 for float weights.
        input_bits: 8, 4, 2, or 0 for float inputs.
        learned: learn the steps of the weights.
        float_layers: which layers stay as they are, as for ``weight_layers``.

    Raises:
        ValueError: no layer is left to quantise, or a name in ``float_layers`` that no layer has; one line.
    """
    layers = weight_layers(network, Layout.of(network), float_layers, "float-layers")
    quantised = {layer.name for layer in layers if not layer.dense}
    found = False
    for name, module in network.named_modules():
        if type(module) not in KINDS or f"{name}.weight".lstrip(".") not in quantised:
            continue
        found = True
        module.__class__ = KINDS[type(module)]  # the parameters and their names stay
        module.of_weights, module.of_inputs = nn.Identity(), nn.Identity()
        if weight_bits:
            weight = module.weight
            module.of_weights = LearnedStep(weight_bits, weight) if learned else QUANTISERS[weight_bits](weight_bits)
        if input_bits:
            module.of_inputs = InputRange(input_bits).to(module.weight.device)
    if not found:
        left = ",".join(float_layers)
        raise ValueError(f"weight-bits, activation-bits: no convolution or linear layer is left; float-layers = {left}")


def few_bits_layers(network: nn.Module) -> dict[str, tuple[Tensor, WeightQuantiser]]:
    """The weights that are quantised, each with its quantiser, by parameter name."""
    return {
        f"{name}.weight".lstrip("."): (module.weight, module.of_weights)
        for name, module in network.named_modules()
        if isinstance(module, FewBits) and isinstance(module.of_weights, WeightQuantiser)
    }
