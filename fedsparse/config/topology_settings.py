"""Topology: which weights exist, and pruning before upload."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.config.settings import OneOf, Settings


class TopologySettings(Settings):
    """Topology: which weights exist, and pruning before upload."""

    sparsity: float = Field(0.0, ge=0, lt=1)
    """Share of the convolution and linear weights that do not exist; what remains is all that travels."""
    topology: Annotated[str, OneOf(("auto", *TOPOLOGIES))] = "auto"
    """How the weights that exist are chosen. auto: feddst with --need-readjust, else static where sparsity is above 0;
    dense keeps them all, whatever the sparsity."""
    sparsity_distribution: Literal["erk", "er", "uniform"] = "erk"
    """Density of each layer: erk (Erdos-Renyi kernel: small layers stay denser), er (whatever the kernels, so that
    convolutions stay denser) or uniform."""
    dense_layers: str = "first,last"
    """Layers that are never pruned or factored, with commas: first, last, or names of layers."""
    sparsity_of: Literal["all", "prunable"] = "all"
    """Weights that the sparsity is a share of: all, so that prunable layers are the sparser for dense ones, or those of
    the prunable layers alone, as in RigL's code (with --dense-layers first)."""
    initial_mask: Literal["random", "magnitude"] = "random"
    """First topology: random, with larger weights for fewer inputs, or each layer's largest initial weights as they
    are."""
    need_readjust: bool = False
    """Let the topology change during training: by feddst, unless ``topology`` names another one that does."""
    readjustment_ratio: float = Field(0.3, ge=0, le=1)
    """Share of each layer's weights that a readjustment exchanges: this at round 0, decaying by a cosine."""
    readjustment_interval: int = Field(10, ge=1)
    """Rounds from one readjustment to the next."""
    readjustment_end: int = Field(0, ge=0)
    """First round without readjustment, so that grown weights are trained; 0 for three quarters of the rounds."""
    growth: Literal["gradient", "random", "momentum"] = "gradient"
    """What ranks the weights that may grow: gradient magnitude, chance, or a moving average of gradients."""
    vote_ranking: Literal["sum", "mean"] = "sum"
    """feddst: rank by the sum of the clients' weights, so that each client that holds one is a vote for it, or by the
    mean over the clients that hold it, as the paper's code does."""
    saliency_samples: int = Field(0, ge=0)
    """ssfl: samples of each client that its saliency is measured on, one mini-batch in the paper; 0 for all."""

    upload_pruning: Literal["off", "sparsegpt", "magnitude"] = "off"
    """Prune the trained weights in one shot and upload the survivors, instead of a compressor's choice."""
    upload_sparsity: float = Field(0.5, ge=0, lt=1)
    """Share of the weights that upload pruning removes, in every layer that it prunes."""
    nm: str = ""
    """N:M, such as 2:4: pruning keeps N of every M input channels, whatever the sparsity."""

    @property
    def topology_method(self) -> str:
        """The name in ``catalogue.TOPOLOGIES`` that the settings mean, or the user's own."""
        if self.topology != "auto":
            return self.topology
        return "feddst" if self.need_readjust else "static" if self.sparsity else "dense"

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """``nm`` as two numbers; None when it is empty."""
        n, _, m = self.nm.partition(":")
        return (int(n), int(m)) if m else None

    def dense_layer_names(self) -> list[str]:
        """``dense_layers`` as a list of names."""
        return [name.strip() for name in self.dense_layers.split(",") if name.strip()]
