"""Training on the pooled data: the upper bound of any federation, and what one-shot pruning starts from."""

import math
import time
from pathlib import Path

import torch

from clients.workbench import Workbench
from fedsparse.config import Config
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.seeds import derive_seed
from fedsparse.telemetry.folder import create_run_folder, save_model
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.loop import evaluate, train


def train_central(config: Config) -> None:
    """Train as a federation of one client that holds every sample, without server or wire.

    A round is ``epochs`` passes over all training samples, so that ``--rounds 10`` makes ten; the learning rate's
    schedule and the evaluations go by rounds, as in a federation. The initial weights are those of a federation of the
    same seed. Writes ``model.pt`` and ``result.json`` into a run folder.

    Raises:
        ConfigError: settings of a sparse network, which this does not train.
        RunFailed: training diverged.
    """
    if config.topology_method != "dense":
        raise ConfigError("train-central trains every weight: leave sparsity, topology and need-readjust out")
    config = config.replace(strategy="fedavg")  # fedprox would pull every round back to where it began
    torch.set_num_threads(config.threads)
    bench = Workbench(config)
    model, everything = bench.model, torch.arange(len(bench.data.y_train), device=bench.device)
    folder = create_run_folder(config.logdir, config.name or f"{Path(config.dataset).stem}-{config.model}-central")
    with Recorder(config.flat(), folder, config.outfile, config.rounds, dense_bytes=0) as recorder:
        for round in range(1, config.rounds + 1):
            began, timer = time.perf_counter(), StageTimer(bench.device)
            seed = derive_seed(config.seed, "train", round=round)
            augmenting = torch.Generator().manual_seed(derive_seed(config.seed, "augment", round=round))
            fetch = bench.fetch(everything, augmenting if config.augment else None)
            score = train(model, fetch, len(everything), config, round=round, seed=seed, timer=timer)
            if not math.isfinite(score.loss):
                raise RunFailed(f"round {round}: the loss is {score.loss}; lower the learning rate")
            metrics = {"train/loss": score.loss, "train/accuracy": score.accuracy}
            if round % config.eval_every == 0 or round == config.rounds:
                with timer("evaluate"):
                    score = evaluate(model, bench.fetch_test, len(bench.data.y_test))
                metrics |= {"eval/loss": score.loss, "eval/accuracy": score.accuracy}
            metrics |= {f"time/{stage}": seconds for stage, seconds in timer.seconds().items()}
            recorder.record(round, metrics | {"time/round": time.perf_counter() - began})
        save_model(model.module, folder / "model.pt")
