"""What layers of low rank cannot be had together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsparse.config import Config


def check_lowrank(config: Config) -> None:
    """Refuse settings that contradict ``lowrank-layers``."""
    if config.lora_rank:
        _check_lora(config)
    if config.lowrank_average != "factors":
        _check_average(config)
    if config.lowrank_layers == "off":
        return
    says = f"lowrank-layers = {config.lowrank_layers}"
    if config.topology_method == "small-dense":
        raise ValueError(f"{says}: topology = small-dense is another way to a small network; leave one of them out")
    sparse = config.topology_method != "dense" or config.upload_pruning != "off"
    if sparse and config.lowrank_form == "fedpara":
        raise ValueError(f"{says}: no topology describes the factors of lowrank-form = fedpara; choose svd")
    if config.lowrank_form == "fedpara" and any(config.bits):
        raise ValueError(f"{says}: the factors of lowrank-form = fedpara would stay float beside few bits; choose svd")
    if not config.lowrank_switches:
        return
    if config.lowrank_form != "svd":
        raise ValueError(f"{says}: factors dense weights, which only lowrank-form = svd can")
    if config.lowrank_switch_round >= config.rounds:
        raise ValueError(
            f"{says}: lowrank-switch-round = {config.lowrank_switch_round} should be less than rounds = {config.rounds}"
        )
    for key, harmless in (
        ("topology", config.topology_method == "dense" and config.upload_pruning == "off"),
        ("weight-bits", config.weight_bits == "off"),
        ("activation-bits", config.activation_bits == "off"),
        ("dp-noise", not config.is_private),
        ("secure-aggregation", not config.secure_aggregation),
    ):
        if not harmless:
            raise ValueError(f"{says}: the network changes during the run, which {key} does not follow; choose full")


def _check_lora(config: Config) -> None:
    says = f"lora-rank = {config.lora_rank}"
    if config.lowrank_layers != "off":
        raise ValueError(f"{says}: lowrank-layers = {config.lowrank_layers} trains all weights; leave one of them out")
    for key, value, others in (
        ("topology", config.topology_method, ("small-dense", "ssfl")),
        ("weight-bits", str(config.weight_bits), tuple("8421")),
    ):
        if value in others:
            raise ValueError(f"{says}: {key} = {value} is about all weights, which are frozen; leave one of them out")


def _check_average(config: Config) -> None:
    """Refuse what an exact average of products does not follow.

    The server must know each client's factors, and its step must be their mean. With ``products``, factors are others
    in each round, so that nothing that is about factors may outlive the round.
    """
    says, sent = f"lowrank-average = {config.lowrank_average}", config.compression()
    if config.lowrank_average == "residual" and not config.lora_rank:
        raise ValueError(f"{says}: is added to the frozen weights beside adapters; set lora-rank, or choose products")
    anew = config.lowrank_average == "products"
    whole = (sent["compressor"], sent["values"]) == ("none", "f32")
    for key, value, fits, wanted in (
        ("lowrank-form", config.lowrank_form, config.lowrank_form == "svd", "svd"),
        ("lora-freeze-a", "true", not config.lora_freeze_a, "false, or factors, which are exact there"),
        ("aggregator", config.aggregator, config.aggregator == "mean", "mean"),
        ("strategy", config.strategy, config.strategy in ("fedavg", "fedprox"), "fedavg"),
        ("server-lr", config.server_lr, config.server_lr in ("auto", 1.0), "1"),
        (
            "error-feedback",
            "true",
            not anew or whole or not sent["error_feedback"],
            "false, or compressor = none and values = f32",
        ),
        ("keep-moments", "true", not (anew and config.keep_moments), "false"),
        (
            "downlink-compressor",
            config.downlink_compressor,
            config.downlink_is_whole,
            "none, and f32 for its values",
        ),
        ("weight-steps", config.weight_steps, config.weight_steps == "computed", "computed"),
        ("activation-bits", config.activation_bits, config.activation_bits == "off", "off"),
        ("topology", config.topology_method, config.topology_method == "dense", "dense"),
        ("upload-pruning", config.upload_pruning, config.upload_pruning == "off", "off"),
        ("dp-noise or dp-epsilon", "a number", not config.is_private, "off"),
        ("secure-aggregation", "true", not config.secure_aggregation, "false"),
    ):
        if not fits:
            raise ValueError(f"{says}: {key} = {value} is about factors; use {wanted}")
