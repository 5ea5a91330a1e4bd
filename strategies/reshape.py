"""The server factors its weights in the middle of a run, or factors them to lower ranks."""

from typing import Any

from torch import Tensor

from fedsparse.experiment import Experiment
from fedsparse.lowrank import dense_state, load_dense, rank_of_energy


def reshaped(experiment: Experiment, weights: Tensor, round: int) -> Experiment:
    """The experiment that goes on after a round, with the weights in its model; the same one where no rank changes.

    Args:
        weights: at the end of the round, float32, shape ``(layout.size,)``.
    """
    config, module = experiment.config, experiment.model.module
    if not config.lowrank_decides(round):
        return experiment
    experiment.model.vector.copy_(weights)
    ranks, lost = experiment.asked_ranks, experiment.lost or (0.0,) * len(experiment.factorable)
    if config.lowrank_layers == "dynamic":
        parts: list[Any] = [module.get_submodule(name) for name in experiment.factorable]
        chosen = [
            rank_of_energy(part.weight, config.lowrank_layer_energy, now or asked, before)
            for part, now, asked, before in zip(parts, experiment.ranks, ranks, lost, strict=True)
        ]
        ranks, lost = tuple(rank for rank, _ in chosen), tuple(energy for _, energy in chosen)
    if ranks == experiment.ranks:
        return experiment
    new = Experiment(config, ranks, lost)
    load_dense(new.model.module, dense_state(module))
    return new
