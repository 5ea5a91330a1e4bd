"""The table of what each setting needs to have an effect."""

from typing import Any

import pytest
import torch

from fedsparse.catalogue import MODELS, TEXT_MODELS
from fedsparse.config import KEYS, Config
from fedsparse.config.effects import NEEDS, ONLY_PLACE_AND_SPEED, has_effect, without_effect
from fedsparse.errors import ConfigError
from fedsparse.models import build_model
from fedsparse.models.speed import BLOCKS
from fedsparse.report.results import used

Settings = dict[str, Any]
READJUSTED, LOWRANK = {"sparsity": 0.5, "topology": "rigl"}, {"compressor": "lowrank"}
SECURE = {"compressor": "none", "secure-aggregation": True}

PAIRS: dict[str, tuple[Settings, Settings]] = {
    "tokenizer": ({"dataset": "shakespeare-mini"}, {"dataset": "mnist"}),
    "seq-length": ({"dataset": "mine.jsonl"}, {"dataset": "mine.npz"}),
    "beta": ({"distribution": "dirichlet"}, {"distribution": "shards"}),
    "classes-per-client": ({"distribution": "shards"}, {"distribution": "iid"}),
    "min-samples": ({"distribution": "iid"}, {"distribution": "natural"}),
    "norm": ({"model": "vgg11"}, {"model": "cnn"}),
    "weight-steps": ({"weight-bits": 4}, {"activation-bits": 8}),
    "float-layers": ({"activation-bits": 8}, {}),
    "weight-broadcast": ({"weight-bits": 1}, {"weight-bits": 4, "downlink-compressor": "topk"}),
    "lowrank-rank": ({"lowrank-layers": "full"}, {}),
    "lowrank-form": ({"lowrank-layers": "full"}, {}),
    "lora-alpha": ({"lora-rank": 4}, {}),
    "lowrank-average": ({"lora-rank": 4}, {}),
    "lora-layers": ({"lora-rank": 4}, {}),
    "lora-freeze-a": ({"lora-rank": 4}, {}),
    "lowrank-switch-round": ({"lowrank-layers": "dynamic"}, {"lowrank-layers": "full"}),
    "lowrank-lr-factor": ({"lowrank-layers": "progressive"}, {}),
    "lowrank-interval": ({"lowrank-layers": "dynamic"}, {"lowrank-layers": "progressive"}),
    "lowrank-layer-energy": ({"lowrank-layers": "dynamic"}, {"lowrank-layers": "selective"}),
    "lowrank-min-size": ({"lowrank-layers": "selective"}, {"lowrank-layers": "full"}),
    "recompute": ({"dataset": "shakespeare-mini"}, {}),
    "recompute-segments": ({"recompute": True, "dataset": "shakespeare-mini"}, {"dataset": "shakespeare-mini"}),
    "epochs": ({}, {"local-steps": 5}),
    "momentum": ({}, {"optimizer": "adamw"}),
    "adam-beta2": ({"optimizer": "adamw"}, {}),
    "keep-moments": ({"momentum": 0.5}, {}),
    "lr-decay": ({"lr-schedule": "exponential"}, {"lr-schedule": "step"}),
    "exit-weight": ({"exits": 1}, {}),
    "exit-distill": ({"exits": 1}, {}),
    "exit-distill-rounds": ({"exits": 1, "exit-distill": 1}, {"exits": 1}),
    "depths": ({"exits": 2}, {}),
    "least-depth": ({"exits": 2, "depths": "uniform:1:3"}, {"exits": 2}),
    "distill-temperature": ({"distill": "global"}, {}),
    "distill-weight": ({"distill": "not-true"}, {"distill": "ensemble"}),
    "distill-data": ({"distill": "ensemble"}, {"distill": "not-true"}),
    "distill-samples": ({"distill": "ensemble"}, {"distill": "global"}),
    "distill-steps": ({"distill": "ensemble"}, {}),
    "distill-lr": ({"distill": "ensemble"}, {}),
    "server-momentum": ({"strategy": "fedavgm"}, {"strategy": "fedavg"}),
    "server-nesterov": ({"strategy": "fedavgm"}, {"strategy": "fedadam"}),
    "server-beta2": ({"strategy": "fedadam"}, {"strategy": "fedavgm"}),
    "server-tau": ({"strategy": "fedadam"}, {"strategy": "fedprox"}),
    "proximal-mu": ({"strategy": "fedprox"}, {"strategy": "fedadam"}),
    "byzantine": ({"aggregator": "krum"}, {"aggregator": "safesparse"}),
    "attackers": ({"attack": "alie"}, {}),
    "holdout": ({"eval-clients": True}, {"eval-clients": False}),
    "density": ({"compressor": "gaussian"}, {"compressor": "eden"}),
    "warmup-rounds": ({"compressor": "stc"}, {"compressor": "threshold"}),
    "scope": ({"compressor": "none", "values": "int8"}, {"compressor": "none"}),
    "layer-budget": ({"compressor": "topk", "scope": "layer"}, {"compressor": "topk"}),
    "shared-support": ({"compressor": "randomk"}, {"compressor": "topk"}),
    "error-feedback": ({"compressor": "none", "values": "f16"}, {"compressor": "none"}),
    "residual-dtype": ({"compressor": "topk"}, {"compressor": "topk", "error-feedback": False}),
    "feedback-decay": ({"compressor": "sparseloco"}, {"compressor": "eden"}),
    "residual-decay": ({"compressor": "signsgd"}, {"compressor": "eden"}),
    "threshold": ({"downlink-compressor": "threshold"}, {"compressor": "topk"}),
    "dgc-momentum": ({"compressor": "dgc"}, {"compressor": "hggtopk"}),
    "dgc-clipping": ({"compressor": "dgc"}, {"compressor": "dgc", "upload-pruning": "sparsegpt"}),
    "rank": ({"compressor": "powersgd"}, {"compressor": "topk"}),
    "lowrank-energy": (LOWRANK, {"compressor": "powersgd"}),
    "lowrank-power-iterations": (LOWRANK, {}),
    "lowrank-residual-iterations": ({"downlink-compressor": "lowrank"}, {}),
    "lowrank-balance": (LOWRANK, {}),
    "lowrank-sparse": (LOWRANK, {}),
    "downlink-density": ({"downlink-compressor": "topk"}, {"downlink-compressor": "qsgd"}),
    "sparsity": ({}, {"topology": "dense"}),
    "sparsity-distribution": (READJUSTED, {"topology": "ssfl", "sparsity": 0.5}),
    "dense-layers": ({"upload-pruning": "magnitude"}, {"topology": "small-dense", "sparsity": 0.5}),
    "readjustment-ratio": (READJUSTED, {"topology": "magnitude", "sparsity": 0.5}),
    "readjustment-interval": ({"topology": "magnitude", "sparsity": 0.5}, {"sparsity": 0.5}),
    "readjustment-end": (READJUSTED, {"topology": "sparsyfed", "sparsity": 0.5}),
    "growth": ({"need-readjust": True, "sparsity": 0.5}, {"topology": "set", "sparsity": 0.5}),
    "sparsity-of": (READJUSTED, {"topology": "small-dense", "sparsity": 0.5}),
    "initial-mask": (READJUSTED, {"topology": "ssfl", "sparsity": 0.5}),
    "vote-ranking": ({"need-readjust": True, "sparsity": 0.5}, READJUSTED),
    "saliency-samples": ({"topology": "ssfl", "sparsity": 0.5}, READJUSTED),
    "upload-sparsity": ({"upload-pruning": "sparsegpt"}, {"upload-pruning": "sparsegpt", "nm": "2:4"}),
    "nm": ({"upload-pruning": "magnitude"}, {}),
    "dp-delta": ({"dp-epsilon": 8}, {}),
    "dp-clip": ({"dp-noise": 1}, {}),
    "dp-noise-by": ({"dp-noise": 1, "compressor": "none"}, {}),
    "secure-limit": (SECURE, {}),
    "secure-bits": (SECURE, {}),
    "max-update-norm": ({}, SECURE),
    "client-timeout": ({"engine": "local"}, {"engine": "flower"}),
    "cohort-batching": ({"engine": "local"}, {"engine": "flower"}),
}
"""For each setting of the table: settings with which it has an effect, and settings with which it has none."""

OTHER_VALUES: Settings = {
    **{"tokenizer": "byte", "seq-length": 64},
    **{"beta": 0.7, "classes-per-client": 3, "min-samples": 5, "norm": "group", "recompute": True, "holdout": 0.4},
    **{"server-momentum": 0.5, "server-beta2": 0.5, "server-tau": 0.5, "proximal-mu": 0.5, "density": 0.2},
    **{"warmup-rounds": 4, "scope": "layer", "layer-budget": "energy", "error-feedback": True, "threshold": 0.5},
    **{"residual-dtype": "bf16", "residual-decay": 0.5, "dgc-momentum": 0.5, "dgc-clipping": 2.0, "rank": 3},
    **{"lowrank-energy": 0.5, "lowrank-power-iterations": 2, "lowrank-residual-iterations": 2},
    **{"lowrank-balance": True, "lowrank-sparse": True, "downlink-density": 0.2, "sparsity": 0.3},
    **{"sparsity-distribution": "er", "dense-layers": "first", "readjustment-ratio": 0.5, "readjustment-interval": 3},
    **{"readjustment-end": 9, "growth": "random", "upload-sparsity": 0.3, "nm": "1:4", "client-timeout": 9.0},
    **{"cohort-batching": "on", "lr-decay": 0.9, "saliency-samples": 16, "sparsity-of": "prunable"},
    **{"initial-mask": "magnitude", "vote-ranking": "mean", "epochs": 3, "momentum": 0.7},
    **{"adam-beta2": 0.8, "keep-moments": True, "server-nesterov": True, "feedback-decay": 0.5},
    **{"weight-steps": "learned", "float-layers": "last", "weight-broadcast": "float"},
    **{"lowrank-rank": 0.5, "lowrank-form": "fedpara", "lowrank-min-size": 500},
    **{"recompute-segments": "auto", "exit-weight": 0.5, "depths": "uniform:1:2", "least-depth": 2},
    **{"exit-distill": 0.5, "exit-distill-rounds": 7},
    **{"distill-temperature": 2.0, "distill-weight": 0.5, "distill-samples": 7, "distill-steps": 3, "distill-lr": 0.5},
    "distill-data": "mine.npz",
    **{"lowrank-average": "products", "lora-alpha": 2.0, "lora-layers": "h.*", "lora-freeze-a": True},
    **{"lowrank-switch-round": 3, "lowrank-lr-factor": 0.3, "lowrank-interval": 4, "lowrank-layer-energy": 0.3},
    **{"byzantine": 0.3, "attackers": 0.4, "shared-support": True},
    **{"dp-delta": 0.5, "dp-clip": 2.0, "dp-noise-by": "clients"},
    **{"secure-limit": 2.0, "secure-bits": 12, "max-update-norm": 7.0},
}
BESIDE = [settings for pair in PAIRS.values() for settings in pair]


def test_every_setting_of_the_table_exists_and_is_tried_here() -> None:
    assert set(NEEDS) == set(PAIRS) == set(OTHER_VALUES)
    assert {*NEEDS, *ONLY_PLACE_AND_SPEED} <= set(KEYS)


@pytest.mark.parametrize("key", PAIRS)
def test_a_setting_has_an_effect_when_its_needs_are_met_and_none_otherwise(key: str) -> None:
    beside, without = (Config.from_mapping(settings) for settings in PAIRS[key])
    assert has_effect(key, beside)
    assert not has_effect(key, without)
    assert without_effect(beside, [key]) == []
    (line,) = without_effect(without, [key])
    assert line.startswith(f"{key} = ")
    assert "\n" not in line


@pytest.mark.parametrize("name", MODELS)
def test_recompute_has_an_effect_where_the_model_has_blocks(name: str) -> None:
    shape = (16,) if name in TEXT_MODELS else (3, 32, 32)
    with torch.device("meta"):
        modules = build_model(name, shape, 10, "batch", seed=0).modules()
    blocks = any(type(module).__name__ in BLOCKS for module in modules)
    assert has_effect("recompute", Config(model=name)) is blocks


@pytest.mark.parametrize("beside", BESIDE, ids=str)
def test_changing_a_setting_without_effect_changes_nothing_that_a_run_depends_on(beside: Settings) -> None:
    config = Config.from_mapping(beside)
    for key in [key for key in NEEDS if not has_effect(key, config)]:
        try:
            changed = config.replace(**{key: OTHER_VALUES[key]})
        except ConfigError:
            continue  # the settings contradict each other, which is another message
        assert used(changed) == used(config), key


@pytest.mark.parametrize(
    ("settings", "key", "line"),
    [
        (
            {"beta": 0.5},
            "beta",
            "beta = 0.5 has no effect: it needs distribution = dirichlet, dirichlet-per-client or "
            "dirichlet-self-balancing, and distribution is iid",
        ),
        (
            {"readjustment-ratio": 0.5, "sparsity": 0.5},
            "readjustment-ratio",
            "readjustment-ratio = 0.5 has no effect: it needs topology = set, rigl, feddst or prunefl, "
            "and topology is auto (static)",
        ),
        (
            {"holdout": 0.5},
            "holdout",
            "holdout = 0.5 has no effect: it needs eval-clients = true, and eval-clients is false",
        ),
        (
            {"sparsity-distribution": "er"},
            "sparsity-distribution",
            "sparsity-distribution = er has no effect: it needs another topology than dense, small-dense or ssfl, "
            "and topology is auto (dense)",
        ),
        (
            {"density": 0.1, "compressor": "signsgd"},
            "density",
            "density = 0.1 has no effect: it needs another compressor than none or threshold, "
            "and compressor is signsgd (none)",
        ),
        (
            {"density": 0.1, "compressor": "powersgd", "rank": 2},
            "density",
            "density = 0.1 has no effect: it needs rank = 0, and rank is 2",
        ),
        (
            {"nm": ""},
            "nm",
            'nm = "" has no effect: it needs upload-pruning = sparsegpt or magnitude, and upload-pruning is off',
        ),
    ],
)
def test_the_line_names_the_need_and_the_setting_that_fails_it(settings: Settings, key: str, line: str) -> None:
    assert without_effect(Config.from_mapping(settings), [key]) == [line]


def test_a_users_own_object_may_use_any_setting_of_its_kind() -> None:
    own = {
        "dataset": "my.py:data",
        "model": "my.py:Net",
        "strategy": "my.py:Server",
        "aggregator": "my.py:Rule",
        "distribution": "my.py:split",
        "compressor": "my.py:Blocks",
        "topology": "my.py:Mine",
        "sparsity": 0.5,
        "scope": "layer",
        "optimizer": "my.py:Adam",
    }
    config = Config.from_mapping(own)
    assert [key for key in NEEDS if not has_effect(key, config)] == [
        "lowrank-rank",
        "lowrank-form",
        "lowrank-min-size",
        "lowrank-average",
        "lora-alpha",
        "lora-layers",
        "lora-freeze-a",
        "lowrank-switch-round",
        "lowrank-lr-factor",
        "lowrank-interval",
        "lowrank-layer-energy",
        "recompute-segments",
        "weight-steps",
        "float-layers",
        "weight-broadcast",
        "lr-decay",
        "exit-weight",
        "exit-distill",
        "depths",
        "least-depth",
        "exit-distill-rounds",
        "distill-temperature",
        "distill-weight",
        "distill-data",
        "distill-samples",
        "distill-steps",
        "distill-lr",
        "attackers",
        "proximal-mu",
        "holdout",
        "downlink-density",
        "upload-sparsity",
        "nm",
        "dp-delta",
        "dp-clip",
        "dp-noise-by",
        "secure-limit",
        "secure-bits",
    ]
