"""A table of what each setting needs to have an effect, for notices to the user and for a sweep's cells."""

from collections.abc import Iterable
from typing import Any

from fedsparse.catalogue import MODELS
from fedsparse.config import Config
from fedsparse.config.needs import (
    NOT_PRUNED,
    Need,
    either,
    either_way,
    given,
    in_words,
    kind_of,
    meant,
    none_of,
    one_of,
    uses_density,
)
from fedsparse.config.presets import FACTORIZATIONS
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError

ONLY_PLACE_AND_SPEED = (
    *("name", "logdir", "outfile", "log-interval", "workers", "data-dir", "state-store", "checkpoint-every", "resume"),
    "tracker",
)
"""Settings that change where a run is written or how fast it goes, but none of its numbers."""


LOSSY = Need(
    "updates that are not sent whole",
    ("compressor", "values", "secure-aggregation"),
    lambda config: (
        config.secure_aggregation or (meant(config, "compressor"), meant(config, "values")) != ("none", "f32")
    ),
)
FROM_TORCHVISION = [name for name, place in MODELS.items() if place.startswith("fedsparse.models.torchvision_models:")]
VISION_MODEL = one_of("model", *FROM_TORCHVISION)
WITH_BLOCKS = ("resnet18", "resnet50", "mobilenet_v2", "gpt2-nano", "gpt2-small", "gpt2-medium")
BLOCKS = one_of("model", *WITH_BLOCKS, "auto")  # auto: not known yet
HAS_BLOCKS = Need(
    f"model = {either(WITH_BLOCKS)}, or recompute-segments",
    ("model",),
    lambda config: BLOCKS.is_met(config) or (config.recompute and config.recompute_segments != "blocks"),
)
READJUSTS = one_of("topology", "set", "rigl", "feddst", "prunefl")
CHANGES = one_of("topology", "set", "rigl", "feddst", "prunefl", "magnitude")
NO_BUDGET = Need("uplink-budget to be empty", ("uplink-budget",), lambda config: not config.uplink_budget)
SELECTS_COORDINATES = none_of("compressor", "none", "threshold", *FACTORIZATIONS)

FACTORED = none_of("lowrank-layers", "off")
LOW_RANK = Need(
    "lowrank-layers or lora-rank",
    ("lowrank-layers", "lora-rank"),
    lambda config: config.lowrank_layers != "off" or config.lora_rank > 0,
)
ADAPTED = Need("lora-rank above 0", ("lora-rank",), lambda config: config.lora_rank > 0)

PRIVATE = Need("dp-noise or dp-epsilon", ("dp-noise", "dp-epsilon"), lambda config: config.is_private)

FEW_BITS = Need("weight-bits or activation-bits", ("weight-bits",), lambda config: any(config.bits))
WHOLE_DOWNLINK = Need(
    "whole weights on the downlink",
    ("downlink-compressor", "downlink-values"),
    lambda config: config.downlink_is_whole,
)
QUANTISED_WEIGHTS = none_of("weight-bits", "off")

TEXT = Need(
    "a data set of text",
    ("dataset",),
    lambda config: kind_of(config.dataset) != "images",
)

NEEDS: dict[str, tuple[Need, ...]] = {
    "tokenizer": (TEXT,),
    "seq-length": (TEXT,),
    "beta": (one_of("distribution", "dirichlet", "dirichlet-per-client", "dirichlet-self-balancing"),),
    "classes-per-client": (one_of("distribution", "shards"),),
    "min-samples": (
        Need(
            "a distribution that draws its own partition",
            ("distribution",),
            lambda config: config.distribution != "natural" and not config.distribution.endswith(".csv"),
        ),
    ),
    "norm": (VISION_MODEL,),
    "lowrank-rank": (FACTORED,),
    "lowrank-form": (FACTORED,),
    "lowrank-min-size": (one_of("lowrank-layers", "selective"),),
    "lowrank-average": (LOW_RANK,),
    **dict.fromkeys(("lora-alpha", "lora-layers", "lora-freeze-a"), (ADAPTED,)),
    "lowrank-switch-round": (one_of("lowrank-layers", "progressive", "dynamic"),),
    "lowrank-lr-factor": (one_of("lowrank-layers", "progressive", "dynamic"),),
    "lowrank-interval": (one_of("lowrank-layers", "dynamic"),),
    "lowrank-layer-energy": (one_of("lowrank-layers", "dynamic"),),
    "recompute": (HAS_BLOCKS,),
    "recompute-segments": (one_of("recompute", "true"), HAS_BLOCKS),
    "weight-steps": (QUANTISED_WEIGHTS,),
    "float-layers": (FEW_BITS,),
    "weight-broadcast": (QUANTISED_WEIGHTS, WHOLE_DOWNLINK),
    "epochs": (Need("local-steps = 0", ("local-steps",), lambda config: not config.local_steps),),
    "momentum": (one_of("optimizer", "sgd"),),
    "adam-beta2": (one_of("optimizer", "adamw"),),
    "keep-moments": (
        Need(
            "an optimizer with moments",
            ("optimizer", "momentum"),
            lambda config: config.optimizer != "sgd" or config.momentum > 0,
        ),
    ),
    "lr-decay": (one_of("lr-schedule", "exponential", own=False),),
    **dict.fromkeys(("exit-weight", "exit-distill", "depths"), (none_of("exits", "0"),)),
    "least-depth": (none_of("exits", "0"), Need("depths", ("depths",), lambda config: bool(config.depths))),
    "exit-distill-rounds": (
        none_of("exits", "0"),
        Need("exit-distill above 0", ("exit-distill",), lambda config: config.exit_distill > 0),
    ),
    "distill-temperature": (none_of("distill", "off"),),
    "distill-weight": (one_of("distill", "global", "not-true"),),
    **dict.fromkeys(
        ("distill-data", "distill-samples", "distill-steps", "distill-lr"), (one_of("distill", "ensemble"),)
    ),
    "server-momentum": (one_of("strategy", "fedavgm", "fedadam"),),
    "server-nesterov": (one_of("strategy", "fedavgm"),),
    "server-beta2": (one_of("strategy", "fedadam"),),
    "server-tau": (one_of("strategy", "fedadam"),),
    "attackers": (none_of("attack", "none"),),
    "byzantine": (one_of("aggregator", "median", "trimmed-mean", "krum", "multi-krum"),),
    "proximal-mu": (one_of("strategy", "fedprox", own=False),),
    "holdout": (one_of("eval-clients", "true"),),
    "density": (NOT_PRUNED, *uses_density("compressor"), NO_BUDGET),
    "warmup-rounds": (NOT_PRUNED, *uses_density("compressor")),
    "scope": (NOT_PRUNED, LOSSY, none_of("compressor", *FACTORIZATIONS)),
    "layer-budget": (NOT_PRUNED, SELECTS_COORDINATES, one_of("scope", "layer", "chunk")),
    "shared-support": (NOT_PRUNED, one_of("compressor", "randomk")),
    "error-feedback": (LOSSY,),
    "residual-dtype": (LOSSY, one_of("error-feedback", "true")),
    "feedback-decay": (LOSSY, one_of("error-feedback", "true")),
    "residual-decay": (LOSSY, one_of("error-feedback", "true")),
    "threshold": (either_way("threshold"),),
    "dgc-momentum": (NOT_PRUNED, one_of("compressor", "dgc")),
    "dgc-clipping": (NOT_PRUNED, one_of("compressor", "dgc")),
    "rank": (either_way(*FACTORIZATIONS),),
    "lowrank-energy": (either_way("lowrank"),),
    "lowrank-power-iterations": (either_way("lowrank"),),
    "lowrank-residual-iterations": (either_way("lowrank"),),
    "lowrank-balance": (either_way("lowrank"),),
    "lowrank-sparse": (either_way("lowrank"),),
    "downlink-density": uses_density("downlink-compressor"),
    # This tests the setting itself, because ``auto`` chooses the topology by the sparsity.
    "sparsity": (Need("another topology than dense", ("topology",), lambda config: config.topology != "dense"),),
    "sparsity-distribution": (none_of("topology", "dense", "small-dense", "ssfl"),),
    "sparsity-of": (none_of("topology", "dense", "small-dense"),),
    "initial-mask": (one_of("topology", "static", "set", "rigl", "feddst", "prunefl"),),
    "vote-ranking": (one_of("topology", "feddst"),),
    "dense-layers": (
        Need(
            "a sparse topology, upload-pruning or lowrank-layers",
            ("topology",),
            lambda config: (
                (config.upload_pruning, config.lowrank_layers) != ("off", "off")
                or config.topology_method not in ("dense", "small-dense")
            ),
        ),
    ),
    "readjustment-ratio": (READJUSTS,),
    "readjustment-interval": (CHANGES,),
    "readjustment-end": (CHANGES,),
    "growth": (one_of("topology", "rigl", "feddst"),),
    "saliency-samples": (one_of("topology", "ssfl"),),
    "upload-sparsity": (
        one_of("upload-pruning", "sparsegpt", "magnitude"),
        Need("nm to be empty", ("nm",), lambda config: not config.nm),
    ),
    "nm": (one_of("upload-pruning", "sparsegpt", "magnitude"),),
    **dict.fromkeys(("dp-delta", "dp-clip", "dp-noise-by"), (PRIVATE,)),
    "secure-limit": (one_of("secure-aggregation", "true"),),
    "secure-bits": (one_of("secure-aggregation", "true"),),
    "max-update-norm": (one_of("secure-aggregation", "false"),),
    "client-timeout": (one_of("engine", "local"),),
    "cohort-batching": (one_of("engine", "local"),),
}
"""The needs of each setting; a setting that is not here always has an effect. An object of the user's own may use any
setting."""


def has_effect(key: str, config: Config) -> bool:
    """Whether a run with these settings depends on the setting ``key``."""
    return all(need.is_met(config) for need in NEEDS.get(key, ()))


def in_effect(config: Config) -> dict[str, Any]:
    """The settings on which a run's numbers depend."""
    return {k: v for k, v in config.flat().items() if k not in ONLY_PLACE_AND_SPEED and has_effect(k, config)}


def without_effect(config: Config, keys: Iterable[str]) -> list[str]:
    """One line for each of the ``keys`` that has no effect, with its first unmet need."""
    lines = []
    for key in keys:
        unmet = next((need for need in NEEDS.get(key, ()) if not need.is_met(config)), None)
        if unmet:
            values = ", ".join(in_words(config, setting) for setting in unmet.settings)
            value = given(config, key) or '""'
            lines.append(f"{key} = {value} has no effect: it needs {unmet.words}, and {values}")
    return lines


def without_mistakes(settings: Given) -> Config:
    """The settings as a Config.

    Raises:
        ConfigError: a setting is wrong, or one that was typed has no effect; one line.
    """
    config = Config.from_mapping(settings)
    for line in without_effect(config, sorted(settings.typed)):
        raise ConfigError(line)
    return config
