"""The server factors its weights in the middle of a run, or factors them to lower ranks."""

import logging
from typing import Any

from torch import Tensor

from fedsparse.experiment import Experiment
from fedsparse.lowrank import dense_state, load_dense, rank_of_energy
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.server_topology import ServerTopology

log = logging.getLogger("fedsparse")


def reshaped(model: ServerModel, round: int) -> ServerModel:
    """The model that goes on after a round: a network of other ranks, where the settings want that; else the same.

    The server's momentum is about weights that are gone, and begins anew.
    """
    experiment = _with_ranks(model.experiment, model.weights, round)
    if experiment is model.experiment:
        return model
    before, after, ranks = model.layout.parameters, experiment.layout.parameters, ", ".join(map(str, experiment.ranks))
    log.warning("round %d: %s weights become %s, by ranks %s", round, f"{before:,}", f"{after:,}", ranks)
    topology = ServerTopology.of_round_1(experiment)
    return ServerModel(experiment, topology, experiment.model.vector.cpu().clone(), experiment.ranks)


def _with_ranks(experiment: Experiment, weights: Tensor, round: int) -> Experiment:
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
