"""One-shot pruning of a trained checkpoint, with the metric of its task before and after."""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedsparse.commands.trained_models import Scores, checked_beside, checked_file, checked_samples, loaded
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.experiment import Experiment
from fedsparse.seeds import derive_seed
from fedsparse.sparsity.one_shot import Pruner, prune_model, recalibrate_batchnorm
from fedsparse.telemetry.folder import create_run_folder, save_model, write_json

PRUNERS: dict[str, Pruner] = {"sparsegpt": "sparsegpt", "magnitude": "magnitude"}
RECALIBRATION = 2048
"""How many samples BatchNorm's statistics are measured anew on."""


def prune(
    settings: Given,
    checkpoint: str = "",
    method: str = "sparsegpt",
    sparsity: str = "",
    nm: str = "",
    samples: str = "512",
) -> None:
    """`main.py prune`: print the metric of the task before and after, and every layer's sparsity; save the model.

    Args:
        settings: data set, model and seed; they override the ``config.yaml`` beside the checkpoint.
        checkpoint: the file of a state dict, such as a run's ``model.pt``.
        method: a key of ``PRUNERS``.
        sparsity: of every layer that is not in ``dense-layers``; empty when ``nm`` is given.
        nm: keep N of every M input channels.
        samples: how many training samples to calibrate on, drawn from the pooled data.

    Raises:
        ConfigError: one of these is missing or wrong; the checkpoint is missing, damaged, or of another model.
        RunFailed: its weights are too large to compute with.
    """
    path = checked_file(checkpoint, "checkpoint", "prune")
    config = checked_beside(settings, path)
    n_of_m = Config.from_mapping({"nm": nm}).n_of_m
    share, calibration = _asked(method, sparsity, n_of_m), checked_samples(samples)
    torch.set_num_threads(config.threads)
    experiment = loaded(config, path)
    module, scores = experiment.model.module, Scores(experiment.task)
    if not experiment.layers:
        raise ConfigError(f"model = {config.model}: has no layer to prune; dense-layers says which stay whole")
    scores.measure("before", experiment)
    batches, dense = _batches(experiment, calibration), config.dense_layer_names()
    try:
        masks = prune_model(module, batches, share, nm=n_of_m, method=PRUNERS[method], dense_layers=dense)
    except ValueError as error:  # finite weights may still give outputs that are not
        raise RunFailed(f"checkpoint = {checkpoint}: {error}") from None
    scores.measure("after", experiment)
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
        recalibrate_batchnorm(module, _batches(experiment, RECALIBRATION))
        scores.measure("after BatchNorm recalibration", experiment)
    layers = {name: {"weights": mask.numel(), "kept": int(mask.sum())} for name, mask in masks.items()}
    folder = create_run_folder(config.logdir, config.name or f"prune-{method}")
    save_model(module, folder / "model.pt", experiment.dataset.vocabulary)
    asked = {"checkpoint": checkpoint, "method": method, "sparsity": share, "nm": nm, "samples": calibration}
    result = {"command": "prune", "config": config.flat(), **asked, scores.name: scores.values, "layers": layers}
    write_json(folder / "result.json", result)
    _print(layers)
    print(f"saved in {folder}")


def _asked(method: str, sparsity: str, nm: tuple[int, int] | None) -> float:
    """The sparsity, as a number."""
    if method not in PRUNERS:
        raise ConfigError(f"method = {method}: should be {' or '.join(PRUNERS)}")
    if bool(sparsity) == bool(nm):
        raise ConfigError("prune needs either --sparsity, such as 0.5, or --nm, such as 2:4")
    try:
        share = float(sparsity or 0)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"sparsity = {sparsity}: should be within 0 and 1")
    return share


def _batches(experiment: Experiment, samples: int) -> list[Tensor]:
    """Inputs from the pooled training data."""
    seed = derive_seed(experiment.config.seed, "calibration")
    return experiment.calibration(experiment.all_samples, samples, seed)


def _print(layers: dict[str, dict[str, Any]]) -> None:
    table = Table("layer", box=None, padding=(0, 2, 0, 0))
    for heading in ("weights", "kept", "sparsity"):
        table.add_column(heading, justify="right")
    rows = [(name, layer["weights"], layer["kept"]) for name, layer in layers.items()]
    rows.append(("all of these", sum(r[1] for r in rows), sum(r[2] for r in rows)))
    for name, weights, kept in rows:
        table.add_row(name, str(weights), str(kept), f"{1 - kept / max(weights, 1):.2%}")
    Console(markup=False, emoji=False).print(table)
