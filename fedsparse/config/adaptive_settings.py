"""Computation that adapts, to the sample and to the client."""

from pydantic import Field, field_validator

from fedsparse.config.settings import Settings
from fedsparse.network import Quantity


class AdaptiveSettings(Settings):
    """Computation that adapts, to the sample and to the client."""

    exits: int = Field(0, ge=0, le=1000)
    """Classifiers at intermediate layers, beside the last one (BranchyNet); for chains of layers. The last evaluation
    tells accuracy against computation, if a sample leaves at the first classifier that is sure enough."""
    exit_weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of the loss of each intermediate classifier, beside the deepest one's at 1; all are averaged."""
    exit_distill: float = Field(0.0, ge=0, le=1e6)
    """Weight of what classifiers learn from one another, beside the loss of each at 1: how far their predictions are
    apart (DepthFL, which has 1). It counts fully after exit-distill-rounds."""
    exit_distill_rounds: int = Field(300, ge=1, le=10**9)
    """Rounds over which this weight rises, from 0.0067 of it."""
    depths: str = ""
    """How many classifiers a client trains, with the layers before them, 1 to exits + 1 (DepthFL): a number,
    uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA over clients, as whole numbers. Empty: all."""
    least_depth: int = Field(1, ge=1, le=1001)
    """Clients of a smaller depth take no part, to see what leaving them out costs."""

    @field_validator("depths")
    @classmethod
    def _check_depths(cls, text: str) -> str:
        if text:
            Quantity.parse(text)
        return text
