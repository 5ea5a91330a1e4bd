"""Layers that are small in themselves: low-rank factors in place of weights."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.catalogue import LOWRANK_FORMS
from fedsparse.config.settings import OneOf, Settings


class LowRankSettings(Settings):
    """Layers that are small in themselves: low-rank factors in place of weights."""

    lowrank_layers: Literal["off", "full", "selective"] = "off"
    """Factor linear and convolution layers, but those of dense-layers, so that only their factors are trained and
    travel: full: all that become smaller; selective: those of at least lowrank-min-size weights."""
    lowrank_rank: float = Field(0.25, gt=0)
    """Rank of the factored layers: below 1 a share of the largest rank, from 1 on the rank itself."""
    lowrank_form: Annotated[str, OneOf(LOWRANK_FORMS, own=False)] = "svd"
    """Factors: svd: U diag(s) V^T, of a convolution two convolutions; fedpara: an elementwise product of two products
    of this rank, which saves bytes but no computation."""
    lowrank_min_size: int = Field(10_000, ge=1)
    """selective: weights from which a layer is factored."""
