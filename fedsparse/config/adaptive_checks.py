"""What clients of several depths cannot be had together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedsparse.network import Quantity

if TYPE_CHECKING:
    from fedsparse.config import Config


def check_exits(config: Config) -> None:
    """Refuse what needs every layer to run, or every client to train the same weights."""
    if config.exits and config.upload_pruning != "off":
        raise ValueError(
            f"exits = {config.exits}: upload-pruning = {config.upload_pruning} measures layers in the deepest pass "
            "alone; leave it out"
        )
    if config.least_depth > config.exits + 1:
        raise ValueError(f"least-depth = {config.least_depth}: there are exits + 1 = {config.exits + 1} classifiers")
    if not config.depths:
        return
    says = f"depths = {config.depths}"
    if not config.exits:
        raise ValueError(f"{says}: clients end at a classifier; give exits")
    asked = Quantity.parse(config.depths)
    if {"fixed": asked.first, "uniform": asked.second}.get(asked.kind, 0) > config.exits + 1:
        raise ValueError(f"{says}: there are exits + 1 = {config.exits + 1} classifiers")
    for key, harmless in (("strategy", ("fedavg", "fedavgm", "fedadam")), ("aggregator", ("mean",)),
                          ("attack", ("none", "label-flip")), ("topology_method", ("dense",))):  # fmt: skip
        if (value := getattr(config, key)) not in harmless:
            name = key.removesuffix("_method")
            raise ValueError(f"{says}: clients train different layers, and {name} = {value} needs the same ones")
    for key in ("is_private", "secure_aggregation", "keep_moments"):
        if getattr(config, key):
            name = "dp-noise" if key == "is_private" else key.replace("_", "-")
            raise ValueError(f"{says}: clients train different layers, and {name} needs the same ones")
    if not config.downlink_is_whole:
        raise ValueError(
            f"{says}: clients hold different layers, and changes of weights that downlink-compressor and "
            "downlink-values send are of all layers; leave them out"
        )
    if config.distill == "ensemble":
        raise ValueError(f"{says}: a client's last classifier is not its own, and distill = ensemble would ask it")
