"""Few bits: weights and inputs of few bits while the network trains."""

from typing import Literal, Self

from pydantic import model_validator

from fedsparse.config.settings import Settings


class FewBitsSettings(Settings):
    """Few bits: weights and inputs of few bits while the network trains."""

    weight_bits: Literal["off", "8", "4", "2", "1"] = "off"
    """Bits of the weights that convolutions and linear layers compute with; the training keeps float weights behind
    them. 8 and 4: evenly spaced levels; 2: -1, 0 and 1; 1: signs; each output channel has its step."""
    weight_steps: Literal["computed", "learned"] = "computed"
    """Steps between the levels: computed from the weights, or learned with them, one for each layer (LSQ; not for 1
    bit)."""
    activation_bits: Literal["off", "8", "4", "2"] = "off"
    """Bits of what these layers get, within a range that follows a moving average of the batches."""
    float_layers: str = "first,last"
    """Layers that keep float weights and inputs, with commas: first, last, or names of layers."""
    weight_broadcast: Literal["quantised", "float"] = "quantised"
    """What the server sends: the quantised weights, from which the clients then train, or its float weights."""

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.weight_bits == "1" and self.weight_steps == "learned":
            raise ValueError("weight-steps = learned: has no levels above 0 with weight-bits = 1; choose computed")
        return self

    @property
    def bits(self) -> tuple[int, int]:
        """The bits of weights and of activations; 0 for float."""
        of_weights, of_activations = (
            0 if bits == "off" else int(bits) for bits in (self.weight_bits, self.activation_bits)
        )
        return of_weights, of_activations

    def float_layer_names(self) -> list[str]:
        """``float_layers`` as a list of names."""
        return [name.strip() for name in self.float_layers.split(",") if name.strip()]
