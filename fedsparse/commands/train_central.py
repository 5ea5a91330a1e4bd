"""Training on the pooled data: the upper bound of any federation, and the start of one-shot pruning."""

import math
import time
from functools import partial

import torch

from fedsparse.commands.run import checked
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, Diverged
from fedsparse.experiment import Experiment
from fedsparse.models.speed import recompute_blocks
from fedsparse.seeds import derive_seed
from fedsparse.telemetry.folder import create_run_folder, save_model, short
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.step_log import StepLog, StepTable
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.batchnorm import joined
from fedsparse.training.loop import evaluate, train


def train_central(settings: Given) -> None:
    """`main.py train-central`: a federation of one client that holds every sample, without server or wire.

    A round is ``epochs`` passes over all training samples. The learning rate's schedule and the evaluations go by
    rounds, as in a federation. The initial weights are those of a federation of the same seed. Writes ``model.pt`` and
    ``result.json`` into a run folder.

    Raises:
        ConfigError: settings of a sparse network, which this does not train.
        Diverged: the loss is not finite.
    """
    config = checked(settings, training="central")
    if config.topology_method != "dense":
        raise ConfigError("train-central trains every weight: leave sparsity, topology and need-readjust out")
    config = config.replace(strategy="fedavg")  # because fedprox would pull weights back to a round's start
    torch.set_num_threads(config.threads)
    experiment = Experiment(config)
    model, task = experiment.model, experiment.task
    if config.recompute:
        recompute_blocks(model.module)
    if config.compile:
        model.module.compile()
    if line := joined(config, model.module, [len(experiment.all_samples)]):
        print(line)
    folder = create_run_folder(config.logdir, config.name or f"{short(config.dataset)}-{short(config.model)}-central")
    recording = Recorder(config.flat(), folder, config.outfile, config.rounds, 0, task.metrics, command="train-central")
    with recording as recorder:
        table = StepTable(task, recorder.scalar)
        for round in range(1, config.rounds + 1):
            began, timer = time.perf_counter(), StageTimer(experiment.device)
            seed = derive_seed(config.seed, "train", round=round)
            augmenting = torch.Generator().manual_seed(derive_seed(config.seed, "augment", round=round))
            fetch = experiment.fetch(experiment.all_samples, augmenting if config.augment else None)
            samples = len(experiment.all_samples)
            log = (
                StepLog(config.log_interval, timer, partial(table.show, round, "all")) if config.log_interval else None
            )
            score = train(model, fetch, samples, config, task, round=round, seed=seed, timer=timer, log=log)
            table.finish(log.step if log else 0)
            if not math.isfinite(score.loss):
                raise Diverged(f"round {round}: the loss is {score.loss}; lower the learning rate")
            metrics = score.tagged("train/", task)
            if round % config.eval_every == 0 or round == config.rounds:
                with timer("evaluate"):
                    score = evaluate(model, experiment.fetch_test, experiment.data.test_size, task)
                metrics |= score.tagged("eval/", task)
            metrics |= {f"time/{stage}": seconds for stage, seconds in timer.seconds().items()}
            recorder.record(round, metrics | {"time/round": time.perf_counter() - began})
        save_model(model.module, folder / "model.pt")
