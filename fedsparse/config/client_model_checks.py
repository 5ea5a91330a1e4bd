"""What clients with networks of several sizes cannot be had together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedsparse.client_models import shares_of

if TYPE_CHECKING:
    from fedsparse.config import Config


def check_client_models(config: Config) -> None:
    """Refuse what needs an update from every client, or many for each network, or is about one network's weights."""
    if not config.client_models:
        return
    says = f"client-models = {config.client_models}"
    every, few = "updates of different networks have no sum", "a network may have no client in a round"
    for key, value, fits, why in (
        ("secure-aggregation", "true", not config.secure_aggregation, every),
        ("dp-noise or dp-epsilon", "a number", not config.is_private, every),
        ("attack", config.attack, config.attack in ("none", "label-flip"), every),
        ("aggregator", config.aggregator, config.aggregator == "mean", "a network has few clients in a round"),
        ("topology", config.topology_method, config.topology_method in ("dense", "static", "small-dense"), few),
        ("upload-pruning", config.upload_pruning, config.upload_pruning == "off", few),
        ("init", config.init, not config.init, "these are the weights of one network"),
        ("lora-rank", config.lora_rank, not config.lora_rank, "these adapters are for the weights of one network"),
        ("depths", config.depths, not config.depths, "it is about the layers of one network"),
    ):
        if not fits:
            raise ValueError(f"{says}: {key} = {value} does not go with it, because {why}; leave one of them out")
    if not config.server_distils and config.models[0] not in shares_of(config.client_models):
        raise ValueError(
            f"{says}: no client holds model = {config.model}; add it, or let it learn by distill = ensemble"
        )
