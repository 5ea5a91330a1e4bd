"""What a client does between training and upload when it prunes: calibrate on its own samples, prune, keep the mask.

Then it measures BatchNorm's statistics anew, on the same samples; the server's average pools them over the cohort.
"""

import torch
from torch import Tensor

from clients.workbench import Workbench
from fedsparse.sparsity import Topology
from fedsparse.sparsity.one_shot import prune_model, recalibrate_batchnorm

SAMPLES = 256
BATCH = 128


def prune_upload(bench: Workbench, indices: Tensor, seed: int) -> Topology:
    """Prune the bench's model in place, as the settings ask, and give the topology that is left.

    Args:
        indices: the client's training samples; up to ``SAMPLES`` of them calibrate.
        seed: of their choice.
    """
    config, batches = bench.config, calibration_batches(bench, indices, SAMPLES, seed)
    masks = prune_model(
        bench.model.module,
        batches,
        config.upload_sparsity,
        nm=config.n_of_m,
        method=config.upload_pruning,  # type: ignore[arg-type]
        dense_layers=config.dense_layer_names(),
    )
    recalibrate_batchnorm(bench.model.module, batches)
    mask = bench.under_bits(b"").topology.mask.clone()
    for layer in bench.layers:
        if layer.name in masks:
            mask[layer.slice] = masks[layer.name].flatten()
    return bench.under_bits(b"").topology.changed(mask, counts=True)


def calibration_batches(bench: Workbench, indices: Tensor, samples: int, seed: int) -> list[Tensor]:
    """Inputs as the model sees them, not augmented: at most ``samples`` of the training samples ``indices``."""
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))[:samples]
    chosen = indices[order.to(indices.device)]
    fetch = bench.fetch(chosen)
    return [fetch(positions)[0] for positions in torch.arange(len(chosen), device=chosen.device).split(BATCH)]
