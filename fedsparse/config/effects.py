"""A table of what each setting needs to have an effect, for notices to the user and for a sweep's cells."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from fedsparse.catalogue import DATASETS, MODELS, TEXTS, USUAL_MODEL
from fedsparse.config import Config
from fedsparse.config.presets import FACTORIZATIONS
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.plugins import is_own

ONLY_PLACE_AND_SPEED = (
    *("name", "logdir", "outfile", "log-interval", "workers", "data-dir", "state-store", "checkpoint-every", "resume"),
    "tracker",
)
"""Settings that change where a run is written or how fast it goes, but none of its numbers."""


class Need(NamedTuple):
    """A condition under which a setting has an effect."""

    words: str
    """The condition in a message, such as "distribution = dirichlet"."""
    settings: tuple[str, ...]
    """The settings that decide whether the condition is met; the message gives their values."""
    is_met: Callable[[Config], bool]


def given(config: Config, key: str) -> str:
    """A setting's value, as a config file writes it."""
    value = getattr(config, key.replace("-", "_"))
    return str(value).lower() if isinstance(value, bool) else str(value)


def meant(config: Config, key: str) -> str:
    """A setting's value, with ``auto`` and presets replaced by the value that they stand for."""
    match key:
        case "compressor" | "values" | "scope":
            return str(config.compression()[key])
        case "error-feedback":
            return str(config.compression()["error_feedback"]).lower()
        case "downlink-compressor":
            return str(config.downlink_compression()["compressor"])
        case "topology":
            return config.topology_method
        case "model":
            first = config.models[0]
            return USUAL_MODEL.get(kind_of(config.dataset), first) if first == "auto" else first
    return given(config, key)


def kind_of(dataset: str) -> str:
    """The kind of the data set of this name; empty when only the loaded data set can say it."""
    if dataset in TEXTS or dataset.endswith((".txt", ".jsonl")):
        return "text"
    return "images" if dataset in DATASETS or dataset.endswith(".npz") else ""


def one_of(key: str, *names: str, own: bool = True) -> Need:
    """The setting ``key`` means one of the names or, unless ``own`` is False, an object of the user's own."""

    def is_met(config: Config) -> bool:
        others = config.models[1:] if key == "model" else ()
        return any(value in names or (own and is_own(value)) for value in (meant(config, key), *others))

    return Need(f"{key} = {either(names)}", (key,), is_met)


def none_of(key: str, *names: str) -> Need:
    """The setting ``key`` means none of the names."""
    return Need(f"another {key} than {either(names)}", (key,), lambda config: meant(config, key) not in names)


def either_way(*names: str) -> Need:
    """The uplink or the downlink uses one of the compressors, or one of the user's own."""
    up, down = one_of("compressor", *names), one_of("downlink-compressor", *names)
    return Need(
        f"compressor or downlink-compressor = {either(names)}",
        ("compressor", "downlink-compressor", "upload-pruning"),
        lambda config: (up.is_met(config) and NOT_PRUNED.is_met(config)) or down.is_met(config),
    )


def uses_density(key: str) -> tuple[Need, ...]:
    """The compressor that the setting ``key`` names depends on its density."""
    return (
        none_of(key, "none", "threshold"),
        Need("rank = 0", ("rank",), lambda config: not config.rank or meant(config, key) not in FACTORIZATIONS),
    )


def either(names: Sequence[str]) -> str:
    """The names as an English list."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


NOT_PRUNED = one_of("upload-pruning", "off")  # a client that prunes uploads every weight that is left
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
            values = ", ".join(_in_words(config, setting) for setting in unmet.settings)
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


def _in_words(config: Config, key: str) -> str:
    value, meaning = given(config, key), meant(config, key)
    return f"{key} is {value}" + f" ({meaning})" * (meaning != value)
