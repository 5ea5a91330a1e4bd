"""What differential privacy and secure aggregation cannot be had together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedsparse.config.presets import PRESETS

if TYPE_CHECKING:
    from fedsparse.config import Config


def check_privacy(config: Config) -> None:
    """Refuse what a guarantee of differential privacy would not hold for."""
    if not config.is_private:
        return
    if "off" not in (config.dp_noise, config.dp_epsilon):
        raise ValueError(f"dp-epsilon = {config.dp_epsilon:g}: decides the noise; leave dp-noise out")
    if config.aggregator != "mean":
        raise ValueError(f"aggregator = {config.aggregator}: compares clients, and dp-clip bounds a sum; use mean")
    if config.upload_pruning != "off":
        raise ValueError(
            f"upload-pruning = {config.upload_pruning}: clients would choose a topology by their data, past the noise "
            "of dp-noise; leave it out"
        )
    if config.attack not in ("none", "label-flip"):
        raise ValueError(f"attack = {config.attack}: its updates depend on those of all clients; leave dp-noise out")
    if config.noise_by_server and config.min_replies > 1:
        raise ValueError(
            f"min-replies = {config.min_replies}: with noise by the server, no round may depend on who replies; use 1"
        )
    if config.noise_by_clients and not _sends_plain_values(config):
        raise ValueError(
            f"dp-noise-by = clients: the sum of replies must be one of plain values at coordinates that no data "
            f"decides: use compressor = none, or randomk with shared-support, values = f32 and error-feedback = "
            f"false, not {config.compressor}"
        )


def _sends_plain_values(config: Config) -> bool:
    """Whether updates travel as float32 values at coordinates that are the same for all clients of a round."""
    sent = config.compression()
    shared = sent["compressor"] == "randomk" and config.shared_support and not sent["error_feedback"]
    return sent["values"] == "f32" and (sent["compressor"] == "none" or shared)


def check_secure_aggregation(config: Config) -> None:
    """Refuse what needs more than the sum of a cohort's updates, each with the same coordinates."""
    if not config.secure_aggregation:
        return
    chosen, least, says = config.compression(), 3, "secure-aggregation = true"
    if chosen["compressor"] != "none" and not (chosen["compressor"] == "randomk" and config.shared_support):
        raise ValueError(
            f"{says}: clients of compressor = {config.compressor} send different coordinates, which have no sum; "
            "choose none, or randomk with shared-support"
        )
    if config.values != "auto" or config.compressor in PRESETS:
        named = "values" if config.values != "auto" else "compressor"
        raise ValueError(f"{says}: has its own coding of values; leave {named} = {getattr(config, named)} out")
    if config.clients_per_round < least:
        raise ValueError(f"{says}: the sum of {config.clients_per_round} clients hides little; it takes {least}")
    if config.clients_per_round > (most := 1 << 32 - config.secure_bits):
        raise ValueError(
            f"{says}: 32 bits do not hold the sum of {config.clients_per_round} clients with secure-bits = "
            f"{config.secure_bits} each; use at most {most} clients-per-round"
        )
    left, threshold = config.clients - config.min_replies + 1, config.secure_threshold
    if left < threshold < config.min_replies:  # a first sum of min-replies - 1 clients leaves too few for a second
        raise ValueError(
            f"{says}: after a sum of {config.min_replies - 1} clients, one less than min-replies, {left} are left, "
            f"and a second sum takes {threshold}; use min-replies = {threshold}, or more clients"
        )
    for key, harmless in (("aggregator", "mean"), ("attack", "none"), ("upload-pruning", "off")):
        value = config.flat()[key]
        if value not in (harmless, "label-flip"):  # flipped labels are the client's own doing
            raise ValueError(f"{says}: {key} = {value} looks at each client's update; use {key} = {harmless}")
    if isinstance(config.max_update_norm, float):
        raise ValueError(f"{says}: the server cannot see the norm of an update; leave max-update-norm out")
    if config.is_private:
        raise ValueError(
            f"{says}: a sum of rounded noise is not the Gaussian mechanism of dp-noise; leave one of them out"
        )
