"""Layers that are small in themselves: low-rank factors in place of weights, or beside frozen ones."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.catalogue import LOWRANK_FORMS
from fedsparse.config.settings import OneOf, Settings


class LowRankSettings(Settings):
    """Layers that are small in themselves: low-rank factors in place of weights, or beside frozen ones."""

    lowrank_layers: Literal["off", "full", "selective", "progressive", "dynamic"] = "off"
    """Factor linear and convolution layers, but those of dense-layers, so that only their factors are trained and
    travel: full: all that become smaller; selective: those of at least lowrank-min-size weights; progressive: all, but
    only from a round on; dynamic: likewise, with ranks that fall to what the weights need."""
    lowrank_rank: float = Field(0.25, gt=0)
    """Rank of the factored layers: below 1 a share of the largest rank, from 1 on the rank itself."""
    lowrank_form: Annotated[str, OneOf(LOWRANK_FORMS, own=False)] = "svd"
    """Factors: svd: U diag(s) V^T, of a convolution two convolutions; fedpara: an elementwise product of two products
    of this rank, which saves bytes but no computation."""
    lowrank_min_size: int = Field(10_000, ge=1)
    """selective: weights from which a layer is factored."""
    lowrank_switch_round: int = Field(10, ge=1)
    """progressive, dynamic: round after which the server factors its weights; what clients and server have kept for
    later rounds, such as residuals and momentum, begins anew."""
    lowrank_lr_factor: float = Field(1.0, gt=0, le=1)
    """progressive, dynamic: factor on the learning rate from the switch on."""
    lowrank_interval: int = Field(10, ge=1)
    """dynamic: rounds from one decision about the ranks to the next."""
    lowrank_layer_energy: float = Field(0.9, gt=0, le=1)
    """dynamic: share of a layer's squared norm that its rank keeps, if lowrank-rank allows."""

    lora_rank: int = Field(0, ge=0)
    """Rank of LoRA's adapters: all other weights are frozen, travel to each client once, and adapters alone are trained
    and uploaded; 0 for no adapters."""
    lora_alpha: float = Field(8.0, gt=0)
    """Scale of the adapters, which is divided by their rank; with sgd a large one may diverge."""
    lora_layers: str = "*"
    """Layers with adapters: names or patterns such as h.*.attn.c_attn, with commas."""
    lora_freeze_a: bool = False
    """Train of each adapter B A only B, as in FFA-LoRA: the mean of B is then exact, and half as much travels."""
    lowrank_average: Literal["factors", "products", "residual"] = "factors"
    """What the server averages of low-rank layers and adapters: their factors; their products, which it factors anew in
    each round; or of adapters the factors, with what these miss of the mean product added to the frozen weights
    (FedEx-LoRA), which travels down too."""

    def lora_patterns(self) -> list[str]:
        """``lora_layers`` as a list."""
        return [pattern.strip() for pattern in self.lora_layers.split(",") if pattern.strip()]

    @property
    def lowrank_switches(self) -> bool:
        """Whether the network begins dense, and its ranks change during the run."""
        return self.lowrank_layers in ("progressive", "dynamic")

    def lowrank_decides(self, round: int) -> bool:
        """Whether the server decides about the ranks at the end of this round."""
        passed = round - self.lowrank_switch_round
        again = self.lowrank_layers == "dynamic" and passed > 0 and passed % self.lowrank_interval == 0
        return self.lowrank_switches and (passed == 0 or again)
