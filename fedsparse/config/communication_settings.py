"""Communication: how updates and weights are made small."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fedsparse.catalogue import COMPRESSORS, VALUES
from fedsparse.config.presets import PRESETS, resolve
from fedsparse.config.settings import OneOf, Settings
from fedsparse.config.uplink_budget import checked_budget


class CommunicationSettings(Settings):
    """Communication: how updates and weights are made small."""

    compressor: Annotated[str, OneOf((*COMPRESSORS, *PRESETS))] = "hggtopk"
    """How an update is made small before upload; none sends it whole."""
    density: float = Field(0.06, gt=0, le=1)
    """Share of an update's coordinates that is uploaded; for a factored layer, the largest size of its factors."""
    uplink_budget: Annotated[str, AfterValidator(checked_budget)] = ""
    """In place of a density: bytes that all updates of the run may have, such as 1MB, or each of them, such as
    8kB/client. Each client finds the density of each update by trying."""
    values: Annotated[str, OneOf(("auto", *VALUES), own=False)] = "auto"
    """Precision of uploaded values; auto: the compressor's own if it names one, else f16 (unbiased: bf16)."""
    error_feedback: bool | Literal["auto"] = "auto"
    """Keep the values that were not sent and add them to the next update; auto: unless the update is unbiased."""
    unbiased: bool | Literal["auto"] = "auto"
    """Round at random, to the update in expectation (none, randomk; ternary: to the clipped update); auto: where the
    compressor's paper does."""
    scope: Literal["auto", "global", "layer", "chunk"] = "auto"
    """Select, and scale values, over the whole update or within each layer; chunk: select within each 4096 coordinates;
    auto: global, or as the method's paper."""
    layer_budget: Literal["proportional", "energy"] = "proportional"
    """With scope layer: coordinates in proportion to a layer's size, or to the squared norm of its update."""
    shared_support: bool = False
    """randomk: all clients of a round send the same coordinates, drawn anew for each round."""
    warmup_rounds: int = Field(0, ge=0)
    """Rounds at densities that fall exponentially, before those at the final one; 0: it is constant."""
    residual_dtype: Literal["f32", "bf16"] = "f32"
    """Precision of the residual that a client keeps for its next update; bf16 takes half the memory."""
    feedback_decay: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """Factor on a client's residual whenever it is added to an update; auto: 1, or 0.95 for sparseloco."""
    residual_decay: float = Field(0.88, ge=0, le=1)
    """Factor on a client's residual for every round that the client missed; 1, as in the papers, discards nothing."""
    threshold: float = Field(0.01, gt=0)
    """threshold: the magnitude from which coordinates are uploaded, in place of a density."""
    dgc_momentum: float = Field(0.9, ge=0, lt=1)
    """dgc: momentum of a client's updates."""
    dgc_clipping: float = Field(0.0, ge=0)
    """dgc: largest norm of an update before it is added up; 0 leaves it alone."""
    rank: int = Field(0, ge=0)
    """lowrank, powersgd: largest rank of a layer; 0: what the density allows."""
    lowrank_energy: float = Field(0.95, gt=0, le=1)
    """lowrank: share of a layer's squared norm to keep, if the rank allows."""
    lowrank_power_iterations: int = Field(1, ge=0)
    """lowrank: more find better factors, slower."""
    lowrank_residual_iterations: int = Field(0, ge=0)
    """lowrank: how often the rest is factored again, within the same rank."""
    lowrank_balance: bool = False
    """lowrank: scale rows to equal magnitude before factoring."""
    lowrank_sparse: bool = False
    """lowrank: sketch with a sparse random matrix, which is faster."""
    downlink_compressor: Annotated[str, OneOf((*COMPRESSORS, *PRESETS))] = "none"
    """How the server sends its weights: none: whole; any other: as compressed changes, with error feedback."""
    downlink_density: float = Field(0.05, gt=0, le=1)
    """Share of the coordinates that a change of the global weights carries."""
    downlink_values: Annotated[str, OneOf(("auto", *VALUES), own=False)] = "auto"
    """Precision of the values in changes of the global weights; auto as for values."""

    def compression(self) -> dict[str, Any]:
        """The arguments of ``UpdateCodec`` after the layout, for updates.

        Raises:
            ValueError: settings that contradict each other.
        """
        chosen = resolve(self.compressor, self.values, self.error_feedback, self.unbiased, self.scope)
        if self.feedback_decay != "auto":
            chosen["feedback_decay"] = self.feedback_decay
        if self.shared_support and self.layer_budget == "energy" and chosen["scope"] != "global":
            raise ValueError(
                "shared-support = True: layer-budget = energy gives each client its own counts; choose proportional"
            )
        names = ("density", "warmup_rounds", "residual_dtype", "residual_decay")
        chosen |= {name: getattr(self, name) for name in names} | {"budget": self.layer_budget}
        return chosen | self._options(chosen["compressor"])

    def downlink_compression(self) -> dict[str, Any]:
        """The same arguments for changes of the global weights. The codec keeps no residual: see ``Downlink``."""
        chosen = resolve(self.downlink_compressor, self.downlink_values, error_feedback=True)
        if chosen["compressor"] == "dgc":
            raise ValueError("downlink-compressor = dgc: its momentum is a client's; choose hggtopk, the same without")
        chosen |= {"error_feedback": False, "density": self.downlink_density}
        return chosen | self._options(chosen["compressor"])

    @property
    def downlink_is_whole(self) -> bool:
        """Whether every message carries the global weights, so that clients need not keep them."""
        return self.downlink_compressor == "none" and self.downlink_values in ("auto", "f32")

    def _options(self, compressor: str) -> dict[str, Any]:
        """The compressor's own arguments."""
        lowrank = ("energy", "power_iterations", "residual_iterations", "balance", "sparse")
        options: dict[str, dict[str, Any]] = {
            "dgc": {"momentum": self.dgc_momentum, "clipping": self.dgc_clipping or None},
            "threshold": {"threshold": self.threshold},
            "powersgd": {"rank": self.rank},
            "lowrank": {"rank": self.rank} | {name: getattr(self, f"lowrank_{name}") for name in lowrank},
        }
        return options.get(compressor, {})
