"""Training on the pooled data: the upper bound of any federation, and the start of one-shot pruning."""

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from fedsparse.commands.checks import checked
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.distillation.teacher import Lesson
from fedsparse.errors import ConfigError, Diverged
from fedsparse.experiment import Experiment
from fedsparse.models.speed import recompute
from fedsparse.provenance import provenance_of
from fedsparse.report.early_exits import figure_of_run
from fedsparse.seeds import derive_seed
from fedsparse.telemetry.folder import create_run_folder, save_model, short
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.step_log import StepLog, StepTable
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.batchnorm import joined
from fedsparse.training.early_exit import early_exits
from fedsparse.training.evaluation import Score, evaluate
from fedsparse.training.loop import train
from fedsparse.training.moments import Memory
from fedsparse.vector import round_hash


def train_central(settings: Given) -> None:
    """`main.py train-central`: a federation of one client that holds every sample, without server or wire.

    A round is ``epochs`` passes over all training samples, or ``local_steps`` steps. The learning rate's schedule and
    the evaluations go by rounds, as in a federation. The initial weights are those of a federation of the same seed.
    Writes ``model.pt`` and ``result.json`` into a run folder.

    Raises:
        ConfigError: settings of a sparse network or of differential privacy, which this does not train with.
        Diverged: the loss is not finite.
    """
    train_all(checked(settings, training="central"))


def train_all(
    config: Config, until: int | None = None, *, lesson: Lesson | None = None, told: Mapping[str, Any] | None = None
) -> None:
    """Train by checked settings.

    Args:
        until: the round after which to stop, as if there were more to come; None for the last.
        lesson: what to learn from a teacher; None for labels alone.
        told: what the result says of the teacher.
    """
    command = "distill" if lesson else "train-central"
    _refuse_what_needs_clients(config, command)
    config = config.replace(strategy="fedavg")  # because fedprox would pull weights back to a round's start
    torch.set_num_threads(config.threads)
    experiment = Experiment(config)
    model, task = experiment.model, experiment.task
    if config.recompute:
        recompute(model.module, config.recompute_segments)
    if config.compile:
        model.module.compile()
    if line := joined(config, model.module, [len(experiment.all_samples)]):
        print(line)
    words = (short(config.dataset), short(experiment.model_name), command.removeprefix("train-"))
    folder = create_run_folder(config.logdir, config.name or "-".join(words))
    memory: Memory | None = {} if config.keep_moments else None
    recording = Recorder(
        config.flat(), folder, config.outfile, config.rounds, 0, task.metrics, command,
        provenance_of(experiment, federated=False),
    )  # fmt: skip
    with recording as recorder:
        recorder.extra |= told or {}
        table = StepTable(task, recorder.scalar)
        for round in range(1, (config.rounds if until is None else until) + 1):
            recorder.record(round, _round(experiment, round, table, memory, lesson))
        if found := early_exits(model, experiment.fetch_test, experiment.data.test_size, task):
            recorder.extra |= found
            recorder.figure("early-exits", figure_of_run(found, recorder.headline))
        save_model(model.module, folder / "model.pt", experiment.dataset.vocabulary)


def _refuse_what_needs_clients(config: Config, command: str) -> None:
    if config.topology_method != "dense":
        raise ConfigError(f"{command} trains every weight: leave sparsity, topology and need-readjust out")
    if config.is_private:
        raise ConfigError(f"{command} adds no noise for privacy: leave dp-noise and dp-epsilon out")
    if config.distill != "off":
        raise ConfigError(f"{command} has no global model and no cohort to learn from: leave distill out")


def _round(
    experiment: Experiment, round: int, table: StepTable, memory: Memory | None, lesson: Lesson | None
) -> dict[str, float]:
    """One round on all training samples, and what it measured under telemetry's tags.

    Raises:
        Diverged: the loss is not finite.
    """
    began, timer = time.perf_counter(), StageTimer(experiment.device)
    config, model, task = experiment.config, experiment.model, experiment.task
    score = _trained(experiment, round, timer, table, memory, lesson)
    if not math.isfinite(score.loss):
        raise Diverged(f"round {round}: the loss is {score.loss}; lower the learning rate")
    metrics = score.tagged("train/", task)
    if round % config.eval_every == 0 or round == config.rounds:
        with timer("evaluate"):
            score = evaluate(model, experiment.fetch_test, experiment.data.test_size, task)
        metrics |= score.tagged("eval/", task)
    metrics["weights/hash"] = round_hash(model.vector.cpu().numpy())
    metrics |= {f"time/{stage}": seconds for stage, seconds in timer.seconds().items()}
    return metrics | {"time/round": time.perf_counter() - began}


def _trained(
    experiment: Experiment,
    round: int,
    timer: StageTimer,
    table: StepTable,
    memory: Memory | None,
    lesson: Lesson | None,
) -> Score:
    """The mean over the batches of a round, which changes the model."""
    config, indices = experiment.config, experiment.all_samples
    augmenting = torch.Generator().manual_seed(derive_seed(config.seed, "augment", round=round))
    show = partial(table.show, round, "all")
    log = StepLog(config.log_interval, timer, show) if config.log_interval else None
    score = train(
        experiment.model,
        experiment.fetch(indices, augmenting if config.augment else None),
        len(indices),
        config,
        experiment.task,
        round=round,
        seed=derive_seed(config.seed, "train", round=round),
        timer=timer,
        log=log,
        memory=memory,
        lesson=lesson,
    )
    table.finish(log.step if log else 0)
    return score
