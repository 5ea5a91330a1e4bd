"""Where clients keep their state: in their Contexts, or in files of the run folder."""

import torch
from flwr.serverapp import Grid

from fedsparse.engine import LocalGrid
from fedsparse.experiment import Experiment

LARGE_STATE = 2**20  # bytes of one client's Context: copying a larger one with every message takes noticeable time
LARGE_MEMORY = 2**32  # bytes of all clients' Contexts, which this process holds


def keeps_files(experiment: Experiment, grid: Grid) -> bool:
    """Whether clients keep their state in files of the run folder, by the settings or by ``auto``'s rule.

    ``auto`` chooses files when one Context is large, because Flower copies it with every message, and when all Contexts
    together would fill the memory. Nodes that ``main.py`` did not start keep their Contexts, because they may run on
    machines without the run folder. Nodes that ``main.py`` started on Flower's runtime keep files, because a checkpoint
    cannot have their Contexts. Clients that this process trains on a GPU keep their residuals on the GPU while all
    residuals take at most a quarter of its free memory (dgc's momentum takes as much again); for state on the host the
    limit of all Contexts holds there too.
    """
    config = experiment.config
    if config.state_store != "auto":
        return config.state_store == "files"
    size = 4 * experiment.layout.parameters * (3 if config.keep_moments else 1)
    size += 4 * experiment.frozen.layout.size if config.lora_rank else 0
    # A client that is called keeps its state from before the round too, until the round is over.
    touched = min(config.clients, config.rounds * config.clients_per_round) + config.clients_per_round
    if experiment.model.vector.is_cuda and isinstance(grid, LocalGrid) and grid.in_process:
        on_host = not config.downlink_is_whole or config.residual_dtype == "bf16"
        too_much = 4 * size * touched > torch.cuda.mem_get_info(experiment.model.vector.device)[0]
        return too_much or (on_host and size * touched > LARGE_MEMORY)
    if config.engine == "flower" and not isinstance(grid, LocalGrid):
        return True
    return isinstance(grid, LocalGrid) and (size > LARGE_STATE or size * touched > LARGE_MEMORY)
