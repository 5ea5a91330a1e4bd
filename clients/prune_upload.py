"""A client that prunes before upload calibrates on its own samples, prunes, and keeps the mask.

Then the client measures BatchNorm's statistics anew on the same samples. The server averages them over the cohort.
"""

from torch import Tensor

from fedsparse.clients.workbench import Workbench
from fedsparse.sparsity import Topology
from fedsparse.sparsity.one_shot import prune_model, recalibrate_batchnorm

SAMPLES = 256


def prune_upload(bench: Workbench, indices: Tensor, seed: int) -> Topology:
    """Prune the bench's model in place, as the settings ask, and give the topology that is left.

    Args:
        indices: the client's training samples; up to ``SAMPLES`` of them calibrate.
        seed: for the choice of these samples.
    """
    config, batches = bench.config, bench.calibration(indices, SAMPLES, seed)
    masks = prune_model(
        bench.model.module,
        batches,
        config.upload_sparsity,
        nm=config.n_of_m,
        method=config.upload_pruning,  # type: ignore[arg-type]
        dense_layers=config.dense_layer_names(),
    )
    recalibrate_batchnorm(bench.model.module, batches)
    full = bench.under_bits(b"").topology
    mask = full.mask.clone()
    for layer in bench.layers:
        if layer.name in masks:
            mask[layer.slice] = masks[layer.name].flatten()
    return full.changed(mask, counts=True)
