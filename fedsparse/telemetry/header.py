"""The first lines of a run: what it is about."""

from fedsparse.config import Config


def header(config: Config) -> str:
    """What the settings say; a command prints it at once, before it reads the data and torch."""
    spread = config.distribution + f" (beta {config.beta:g})" * config.distribution.startswith("dirichlet")
    lossy = config.compression()["compressor"] not in ("none", "threshold") and config.upload_pruning == "off"
    sparse = f", {config.topology_method} at sparsity {config.sparsity:g}" if config.topology_method != "dense" else ""
    sent = config.compressor + f" at density {config.density:g}" * lossy
    return (
        f"{config.dataset}, {spread}: {config.clients_per_round} of {config.clients} clients a round, "
        f"{config.rounds} rounds\n{config.model}{sparse}, {config.strategy}, {sent}"
    )
