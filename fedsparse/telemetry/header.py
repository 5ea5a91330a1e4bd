"""The first line of a run: what its settings say."""

from fedsparse.config import Config


def header(config: Config) -> str:
    """One line about the federation; a command prints it at once, because torch and the data take seconds to read."""
    spread = config.distribution + f" (beta {config.beta:g})" * config.distribution.startswith("dirichlet")
    has_density = config.compression()["compressor"] not in ("none", "threshold") and config.upload_pruning == "off"
    return (
        f"{config.dataset}, {spread}: {config.clients_per_round} of {config.clients} clients a round, rounds: "
        f"{config.rounds}, {config.strategy}, {config.compressor}" + f" at density {config.density:g}" * has_density
    )
