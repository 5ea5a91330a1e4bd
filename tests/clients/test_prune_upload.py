"""Pruning before upload on a client."""

import pytest
import torch
from torch import nn

from fedsparse.catalogue import MODELS
from fedsparse.clients.prune_upload import SAMPLES, prune_upload
from fedsparse.clients.workbench import Workbench
from fedsparse.config import Config


def network(input_shape: tuple[int, int, int], classes: int, norm: str) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(1152, classes)
    )


def test_batchnorms_statistics_are_those_of_the_pruned_model(
    tiny_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "cnn-small", f"{__name__}:network")
    sizes = {"clients": 10, "clients-per-round": 2, "distribution": "iid", "dataset": tiny_dataset}
    bench = Workbench(Config.from_mapping(sizes | {"upload-pruning": "sparsegpt", "upload-sparsity": 0.8}))
    indices, _ = bench.samples(0)
    kept = prune_upload(bench, indices, seed=1)
    module = bench.model.module
    seen = module[:3](torch.cat(bench.calibration(indices, SAMPLES, seed=1)))
    assert 0.1 < kept.density < 1
    torch.testing.assert_close(module[3].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(module[3].running_var, seen.var((0, 2, 3)))
