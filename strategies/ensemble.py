"""The server distils a cohort's models into their mean, on samples without labels.

FedDF: Lin et al. 2020, "Ensemble Distillation for Robust Model Fusion in Federated Learning", algorithm 1, and with
several networks algorithm 3. The teacher is the mean of the clients' scores, whatever their networks. A student starts
from the mean weights of the clients with its network, and Adam's learning rate falls by a cosine. A network without
clients in a round is taught too, from its present weights; the authors' code leaves it as it is.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from fedsparse.compression import SparseUpdate
from fedsparse.distillation.imitation import Imitation
from fedsparse.errors import Diverged
from fedsparse.experiment import Experiment
from fedsparse.seeds import derive_seed
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.strategies.server_model import ServerModel
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.batchnorm import clamp_variances_
from fedsparse.training.loop import train
from fedsparse.training.scores import scores_of


class Ensemble:
    """One round's models. Each gives its scores when it arrives, so that the server holds one at a time.

    A client's model is here the server's weights with its update, as for the mean. Where few bits travel down or a
    compressor drops values, the client itself has a slightly different one.

    Args:
        experiment: with the server's own samples.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._fetch, self._samples = experiment.unlabelled
        self._sum, self._models = torch.empty(0), 0

    def add(self, start: ServerModel, update: SparseUpdate) -> None:
        """Add a client's scores, with the same weight for every client; those of a model that overflows are left out.

        One hostile client would otherwise end the run with a model that gives NaN.

        Args:
            start: what the client trained from; the model of its experiment is changed.
        """
        model, local = start.experiment.model, start.weights.clone()
        update.add_to(local)
        clamp_variances_(local, model.layout)
        model.vector.copy_(local)
        scores = scores_of(model, self._fetch, self._samples)
        if scores.isfinite().all():
            self._sum = self._sum.add_(scores) if self._models else scores
            self._models += 1

    def teach(self, students: Iterable[ServerModel], round: int) -> None:
        """Train the weights of networks, in place; what does not exist stays 0.

        Raises:
            Diverged: the scores are not finite.
        """
        taught = self._sum.div_(max(self._models, 1))
        if not (self._models and taught.isfinite().all()):
            raise Diverged(f"round {round}: the scores of the clients' models are not finite; lower the learning rates")
        for student in students:
            self._imitate(taught, student, round)

    def _imitate(self, taught: Tensor, student: ServerModel, round: int) -> None:
        """Train the weights of one network towards these scores, a row a sample."""
        experiment, model = student.experiment, student.trained
        ours, seed = experiment.config, derive_seed(experiment.config.seed, "distill", round=round)
        adam = {"optimizer": "adamw", "adam_beta2": 0.999, "weight_decay": 0.0, "clip_norm": 0.0, "strategy": "fedavg"}
        cosine = {"lr": ours.distill_lr, "lr_schedule": "cosine", "lr_schedule_by": "step", "lr_warmup_rounds": 0}
        config = ours.model_copy(update={**adam, **cosine, "rounds": 1, "local_steps": ours.distill_steps})
        local = LocalTopology(model, student.topology.current.to(experiment.device), experiment.method, round, seed)
        train(
            model,
            lambda positions: (self._fetch(positions)[0], taught[positions]),
            self._samples,
            config,
            Imitation(ours.distill_temperature),
            round=1,
            seed=seed,
            timer=StageTimer(experiment.device),
            topology=local,
        )
        student.weights.copy_(model.vector)
