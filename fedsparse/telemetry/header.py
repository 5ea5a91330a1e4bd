"""The first line of a run: what its settings say."""

from fedsparse.config import Config
from fedsparse.config.effects import has_effect


def header(config: Config) -> str:
    """One line about the federation; a command prints it at once, because torch and the data take seconds to read."""
    spread = config.distribution + f" (beta {config.beta:g})" * has_effect("beta", config)
    sent = config.compressor + f" at density {config.density:g}" * has_effect("density", config)
    if config.uplink_budget:
        sent = f"{config.compressor} within {config.uplink_budget}"
    if config.upload_pruning != "off":
        sent = f"pruned by {config.upload_pruning}"
    privacy = ""
    if config.is_private:
        noise = f"noise {config.dp_noise}" if config.dp_epsilon == "off" else f"epsilon {config.dp_epsilon:g}"
        privacy = f", private ({noise}, clip {config.dp_clip:g}, by {config.dp_noise_by})"
    return (
        f"{config.dataset}, {spread}: {config.clients_per_round} of {config.clients} clients a round, rounds: "
        f"{config.rounds}, {config.strategy}, {sent}"
        + privacy
        + f", {config.aggregator}" * (config.aggregator != "mean")
        + f"; ATTACK: {config.attackers:.0%} of the clients are hostile ({config.attack})" * (config.attack != "none")
    )
