"""Topologies, compressors and pruning of a small GPT-2 on text, in real rounds."""

import pytest
import torch
from torch import nn

from fedsparse.catalogue import COMPRESSORS, TOPOLOGIES
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.config.presets import PRESETS
from fedsparse.experiment import Experiment
from fedsparse.models.cnn import scaled
from fedsparse.models.gpt2 import GPT2
from fedsparse.sparsity.densities import budget, erk
from fedsparse.sparsity.one_shot import layer_hessian, prune_layer, prune_model
from tests.fedsparse.sparsity.test_sparsegpt import by_the_book
from tests.strategies.federation import TRAFFIC, binding_of, play


def tiny_gpt2(input_shape: tuple[int], classes: int, width: float = 1.0) -> nn.Module:
    """gpt2-nano with fewer and narrower blocks, and with 8 positions more than a window has."""
    return GPT2(classes, input_shape[0] + 8, blocks=3, heads=2, units=2 * scaled(8, width))


SETTINGS = {
    "dataset": "shakespeare-mini",
    "model": "tests.strategies.test_language:tiny_gpt2",
    "distribution": "natural",
    "clients": 100,
    "clients-per-round": 2,
    "saliency-samples": 4,
    "seq-length": 16,
    "batch-size": 4,
    "local-steps": 2,
    "optimizer": "adamw",
    "lr": 0.01,
    "momentum": 0.0,
    "eval-clients": False,
}


@pytest.mark.parametrize("method", TOPOLOGIES)
def test_every_topology_trains_the_projections_alone_and_leaves_the_rest_dense(method: str) -> None:
    rounds = play(rounds=3, **SETTINGS, topology=method, sparsity=0.5)
    layers = rounds[0].topology.layers
    if method != "small-dense":
        assert {layer.name.split(".", 2)[2] for layer in layers} == {
            *("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
        }
        assert [layer.name for layer in layers if layer.dense] == ["h.0.attn.c_attn.weight", "h.2.mlp.c_proj.weight"]
    for _, weights, topology, *_ in rounds:
        assert weights.isfinite().all()
        assert topology.mask[~topology.prunable].all()
        assert not weights[: topology.mask.numel()][~topology.mask].any()
    if method in ("static", "set", "rigl", "feddst"):
        assert {topology.counts for _, _, topology, *_ in rounds} == {erk(layers, 0.5)}
        assert sum(erk(layers, 0.5)) == budget(layers, 0.5) + sum(layer.size for layer in layers if layer.dense)
    if method in ("set", "rigl", "feddst"):
        assert rounds[1].metrics["topology/changed"] > 0


@pytest.mark.parametrize("compressor", [*COMPRESSORS, *PRESETS])
def test_every_compressor_codes_the_updates_of_a_language_model(compressor: str) -> None:
    first, *_, last = play(rounds=2, **SETTINGS, compressor=compressor, topology="dense", sparsity=0, density=0.05)
    experiment = Experiment(Config.from_mapping(SETTINGS))
    assert not torch.equal(first.weights, last.weights)
    assert last.weights.isfinite().all()
    for message, reply in TRAFFIC:
        payload = reply.content["arrays"]["update"].data
        update = decode(payload, experiment.layout, binding_of(message)).to_dense()
        assert update.any()
        assert len(payload) <= 4 * experiment.layout.size + 64


def test_sparsegpt_prunes_the_projections_of_gpt2_on_calibration_text_as_exact_obs_does() -> None:
    experiment = Experiment(Config.from_mapping(SETTINGS))
    model, batches = experiment.model.module, experiment.calibration(experiment.all_samples[:64], 32, seed=0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    layer = model.h[1].attn.c_proj  # (16, 16): one block of columns
    hessian = layer_hessian(model, layer, batches)
    expected, mask = by_the_book(layer.weight.detach().double(), hessian[0], [(0, 16, 128)])
    assert torch.equal(prune_layer(layer, hessian, 128), mask)
    torch.testing.assert_close(layer.weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
    layer.weight.data.copy_(before["h.1.attn.c_proj.weight"])
    masks = prune_model(model, batches, 0.5)
    assert set(masks) == {
        f"h.{i}.{name}.weight" for i in range(3) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    } - {"h.0.attn.c_attn.weight", "h.2.mlp.c_proj.weight"}
    assert all(int(mask.sum()) * 2 == mask.numel() for mask in masks.values())
    assert torch.equal(model.wte.weight, before["wte.weight"])
    assert torch.equal(model.h[0].mlp.c_fc.bias, before["h.0.mlp.c_fc.bias"])
    assert torch.equal(model.h[1].mlp.c_fc.weight != 0, masks["h.1.mlp.c_fc.weight"])


@pytest.mark.parametrize("pruner", ["sparsegpt", "magnitude"])
def test_a_client_prunes_gpt2_on_its_own_text_before_upload(pruner: str) -> None:
    settings = {"upload-pruning": pruner, "upload-sparsity": 0.5, "compressor": "none", "topology": "dense"}
    play(rounds=1, **SETTINGS, **settings, sparsity=0)
    experiment = Experiment(Config.from_mapping(SETTINGS))
    prunable = sum(layer.size for layer in experiment.layers if not layer.dense)
    for _, reply in TRAFFIC:
        arrays = reply.content["arrays"]
        sent = experiment.layout.size - prunable // 2
        assert 4 * sent <= len(arrays["update"].data) <= 4 * sent + 200
        assert len(arrays["mask"].data) <= prunable / 8 + 200
