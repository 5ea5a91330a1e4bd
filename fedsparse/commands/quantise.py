"""Post-training quantisation of a trained checkpoint, with the metric of its task before and after."""

import torch
from torch import nn

from fedsparse.commands.trained_models import (
    Scores,
    checked_beside,
    checked_file,
    checked_samples,
    loaded,
    refuse_few_bits,
)
from fedsparse.compression import UpdateCodec
from fedsparse.compression.client_state import ClientState
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.models.initial import load_weights
from fedsparse.quantisation import few_bits_layers
from fedsparse.quantisation.few_bits_broadcast import few_bits_payload
from fedsparse.quantisation.inputs import InputRange
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology
from fedsparse.sparsity.compact import Compact
from fedsparse.telemetry.folder import create_run_folder, save_model, write_json
from fedsparse.telemetry.progress import human_bytes

BITS = ("8", "4", "2", "1")
INPUT_BITS = ("off", "8", "4", "2")


def quantise(settings: Given, checkpoint: str = "", bits: str = "8", inputs: str = "8", samples: str = "512") -> None:
    """`main.py quantise`: print the metric of the task before and after, and the size; save the model.

    BatchNorm needs no folding: with a step for each channel it changes the steps alone (see ``symmetric``).

    Args:
        settings: data set, model and seed; they override the ``config.yaml`` beside the checkpoint.
        checkpoint: the file of a state dict, such as a run's ``model.pt``.
        bits: of the weights, one of ``BITS``.
        inputs: bits of what the layers get, one of ``INPUT_BITS``.
        samples: how many training samples the ranges of the inputs are observed on.

    Raises:
        ConfigError: one of these is missing or wrong; the checkpoint is missing, damaged, or of another model.
    """
    for name, value, allowed in (("bits", bits, BITS), ("inputs", inputs, INPUT_BITS)):
        if value not in allowed:
            raise ConfigError(f"{name} = {value}: should be one of {', '.join(allowed)}")
    path, calibration = checked_file(checkpoint, "checkpoint", "quantise"), checked_samples(samples)
    config = checked_beside(settings, path)
    refuse_few_bits(config, path)
    torch.set_num_threads(config.threads)
    before = loaded(config, path)
    ranks = before.ranks if before.config.lowrank_layers != "off" else ()
    few = before.config.replace(weight_bits=bits, activation_bits=inputs, weight_steps="computed")
    after = Experiment(few, ranks)
    load_weights(after.model.module, path, after.model_name, "checkpoint", after.dataset.vocabulary)
    if inputs != "off":
        seen = after.calibration(after.all_samples, calibration, derive_seed(config.seed, "calibration"))
        observe(after.model.module, seen)
    scores = Scores(before.task)
    scores.measure("before", before)
    scores.measure("after", after)
    whole, _ = UpdateCodec(before.layout, "none").encode(before.model.vector, ClientState(), round=0, seed=0)
    full = Compact(after.layout, Topology.full(after.layers, after.layout.parameters))
    size = len(few_bits_payload(after.model, after.model.vector.cpu().clone(), full, round=0))
    with torch.no_grad():
        for weight, quantiser in few_bits_layers(after.model.module).values():
            weight.copy_(quantiser(weight))
    folder = create_run_folder(config.logdir, config.name or f"quantise-{bits}")
    save_model(after.model.module, folder / "model.pt", after.dataset.vocabulary)
    asked = {"checkpoint": checkpoint, "bits": bits, "inputs": inputs, "samples": calibration}
    result = {"command": "quantise", "config": after.config.flat(), **asked, scores.name: scores.values}
    write_json(folder / "result.json", result | {"bytes": size, "float-bytes": len(whole)})
    print(f"{human_bytes(size)} as a message, {len(whole) / size:.1f} times below {human_bytes(len(whole))}")
    print(f"saved in {folder}: model.pt has the quantised weights as float32")


@torch.no_grad()
def observe(module: nn.Module, batches: list[torch.Tensor]) -> None:
    """Set the range of each quantised input to the mean over ``batches`` of the least and the largest value."""
    ranges = [part for part in module.eval().modules() if isinstance(part, InputRange)]
    kept = [part.momentum for part in ranges]
    for seen, batch in enumerate(batches):
        for part in ranges:
            part.train()
            part.momentum = 1 / (seen + 1)
        module(batch)
    for part, momentum in zip(ranges, kept, strict=True):
        part.eval().momentum = momentum
