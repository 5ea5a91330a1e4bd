"""What layers of low rank cannot be had together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsparse.config import Config


def check_lowrank(config: Config) -> None:
    """Refuse settings that contradict ``lowrank-layers``."""
    if config.lowrank_layers == "off":
        return
    says = f"lowrank-layers = {config.lowrank_layers}"
    if config.topology_method == "small-dense":
        raise ValueError(f"{says}: topology = small-dense is another way to a small network; leave one of them out")
    sparse = config.topology_method != "dense" or config.upload_pruning != "off"
    if sparse and config.lowrank_form == "fedpara":
        raise ValueError(f"{says}: no topology describes the factors of lowrank-form = fedpara; choose svd")
