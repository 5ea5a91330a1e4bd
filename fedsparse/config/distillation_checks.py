"""What the server cannot distil a cohort's ensemble together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsparse.config import Config


def check_distillation(config: Config) -> None:
    """Refuse what hides the clients' models from the server, or leaves it no samples of its own."""
    if config.distill != "ensemble":
        return
    says = "distill = ensemble"
    if config.secure_aggregation:
        raise ValueError(f"{says}: needs each client's model, which secure-aggregation hides; leave one of them out")
    if config.is_private:
        raise ValueError(f"{says}: learns from each client's model, past the noise of dp-noise; leave one of them out")
    if config.aggregator != "mean":
        raise ValueError(f"{says}: is a mean over all clients, and aggregator = {config.aggregator} would not guard it")
    if config.upload_pruning != "off" or config.topology_method in ("feddst", "sparsyfed"):
        raise ValueError(f"{says}: needs a topology that the server chooses, the same for all clients")
    if config.distribution.endswith(".csv") and config.distill_data == "set-apart":
        raise ValueError(
            f"{says}: needs samples that no client holds, and distribution = {config.distribution} gives all away; "
            "give distill-data"
        )
