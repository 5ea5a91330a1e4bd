"""One typed, validated Config: the same names on the command line, in YAML and in Flower's run config.

A field ``clients_per_round`` is ``--clients-per-round``, ``clients-per-round:`` and ``clients-per-round=``. Precedence:
defaults, then ``--config FILE``, then flags. Each group of fields has a file. A method that needs the fields of one
group stands in that file; a method that needs several groups stands here.
"""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from fedsparse.client_models import entries_of, model_of, shares_of
from fedsparse.config.adaptive_checks import check_exits
from fedsparse.config.adaptive_settings import AdaptiveSettings
from fedsparse.config.client_model_checks import check_client_models
from fedsparse.config.communication_settings import CommunicationSettings
from fedsparse.config.data_settings import FILES, DataSettings
from fedsparse.config.distillation_checks import check_distillation
from fedsparse.config.distillation_settings import DistillationSettings
from fedsparse.config.federation_settings import FederationSettings
from fedsparse.config.few_bits_settings import FewBitsSettings
from fedsparse.config.lowrank_checks import check_lowrank
from fedsparse.config.lowrank_settings import LowRankSettings
from fedsparse.config.model_settings import ModelSettings
from fedsparse.config.network_settings import NetworkSettings
from fedsparse.config.presets import FACTORIZATIONS
from fedsparse.config.privacy_checks import check_privacy, check_secure_aggregation
from fedsparse.config.privacy_settings import PrivacySettings
from fedsparse.config.run_settings import RunSettings, core_count
from fedsparse.config.settings import Settings
from fedsparse.config.topology_checks import check_topology
from fedsparse.config.topology_settings import TopologySettings
from fedsparse.config.training_settings import TrainingSettings
from fedsparse.config.trust_settings import TrustSettings
from fedsparse.config.uplink_budget import UplinkBudget, check_uplink_budget
from fedsparse.errors import ConfigError
from fedsparse.network import Network
from fedsparse.plugins import absolute, is_own
from fedsparse.seeds import derive_seed


class Config(
    DataSettings,
    ModelSettings,
    LowRankSettings,
    FewBitsSettings,
    TrainingSettings,
    AdaptiveSettings,
    DistillationSettings,
    FederationSettings,
    CommunicationSettings,
    NetworkSettings,
    TopologySettings,
    TrustSettings,
    PrivacySettings,
    RunSettings,
):
    """Every setting of an experiment."""

    @model_validator(mode="before")
    @classmethod
    def _as_text(cls, settings: Any) -> Any:
        """Turn numbers and switches into text, so that a value means everywhere what it means in a flag."""
        return {key: str(value) if isinstance(value, int | float) else value for key, value in settings.items()}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.clients_per_round > self.clients:
            raise ValueError(
                f"clients-per-round = {self.clients_per_round} is more than clients = {self.clients}: "
                "sample fewer clients or make more"
            )
        if self.min_replies > self.clients_per_round:
            raise ValueError(
                f"min-replies = {self.min_replies} is more than clients-per-round = {self.clients_per_round}"
            )
        if self.workers != "auto" and self.workers < 1:
            raise ValueError(f"workers = {self.workers}: should be auto or at least 1")
        if self.round_deadline and not self.compute_seconds:
            raise ValueError(
                f"round-deadline = {self.round_deadline:g} needs compute-seconds: by measured seconds, who is late "
                "would depend on what else this machine does"
            )
        self._check_attack()
        check_privacy(self)
        check_secure_aggregation(self)
        check_lowrank(self)
        check_client_models(self)
        check_distillation(self)
        check_exits(self)
        check_topology(self)
        self.compression(), self.downlink_compression()  # each raises for settings that contradict each other
        check_uplink_budget(self)
        sparse = self.topology_method not in ("dense", "small-dense") or self.upload_pruning != "off"
        for key, name in (("compressor", self.compressor), ("downlink-compressor", self.downlink_compressor)):
            if sparse and name in FACTORIZATIONS:
                raise ValueError(
                    f"{key} = {name} factors layers as matrices, and what exists of a sparse one is none: choose a "
                    "compressor of coordinates, or leave sparsity and upload-pruning out"
                )
        return self

    def _check_attack(self) -> None:
        if self.attack == "none":
            return
        if self.engine != "local":
            raise ValueError(f"attack = {self.attack} is for experiments with engine = local, not {self.engine}")
        if self.upload_pruning != "off" or self.topology_method in ("feddst", "sparsyfed"):
            raise ValueError(
                f"attack = {self.attack} needs a topology that the server chooses, the same for all clients"
            )

    @property
    def secure_threshold(self) -> int:
        """How many clients a secure sum takes at least: two thirds of a cohort, rounded up."""
        return -(-2 * self.clients_per_round // 3)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """A Config of these settings; the keys may be in kebab or snake case.

        Raises:
            ConfigError: one line that names the key, the value and what is allowed.
        """
        try:
            return cls.model_validate({str(key).replace("_", "-"): value for key, value in mapping.items()})
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    @property
    def models(self) -> tuple[str, ...]:
        """The networks of the run: the one that results are about, and then the others that clients hold."""
        held = tuple(shares_of(self.client_models))
        return held if held and self.model == "auto" else tuple(dict.fromkeys((self.model, *held)))

    def model_of(self, client: int) -> str:
        """The network that a client holds, one of ``models``."""
        return model_of(client, self.client_models, self.seed) if self.client_models else self.model

    def with_model(self, name: str) -> Self:
        """The settings with another of ``models`` as the one that results are about."""
        return self.replace(model=name) if self.client_models else self

    @property
    def sends_few_bits(self) -> bool:
        """Whether the server sends quantised weights."""
        return self.weight_bits != "off" and self.weight_broadcast == "quantised" and self.downlink_is_whole

    def network(self) -> Network:
        """The clients' simulated links; false when there are none."""
        return Network(self.uplink_mbps, self.downlink_mbps, self.latency_ms, self.seed)

    def loading(self) -> tuple[str, str, str, int]:
        """The arguments of ``data.load_dataset``."""
        return self.dataset, self.data_dir, self.tokenizer, self.seq_length

    @property
    def server_distils(self) -> bool:
        """Whether the server asks its clients' models for their scores."""
        return self.distill == "ensemble" and self.distill_steps > 0

    @property
    def sets_apart(self) -> bool:
        """Whether the server has training samples that no client holds."""
        return self.distill == "ensemble" and self.distill_data == "set-apart"

    def partitioning(self) -> dict[str, Any]:
        """The arguments of ``data.partition_of`` after the data set."""
        return {
            "distribution": self.distribution,
            "clients": self.clients,
            "seed": derive_seed(self.seed, "partition"),
            "beta": self.beta,
            "classes_per_client": self.classes_per_client,
            "min_samples": self.min_samples,
            "apart": self.distill_samples if self.sets_apart else 0,
        }

    def support_seed(self, round: int) -> int | None:
        """The seed of the coordinates that all clients of a round send; None where each client draws its own."""
        return derive_seed(self.seed, "support", round=round) if self.shared_support else None

    def uplink_share(self) -> float:
        """The bytes that the uplink budget has for one update at the start of the run."""
        return UplinkBudget.of(self.uplink_budget).share(self.rounds * self.clients_per_round)

    def readjustment(self) -> dict[str, Any]:
        """The arguments of a ``TopologyMethod``."""
        return {
            "sparsity": self.sparsity,
            "distribution": self.sparsity_distribution,
            "ratio": self.readjustment_ratio,
            "interval": self.readjustment_interval,
            "end": self.readjustment_end or math.ceil(self.rounds * 3 / 4),
            "growth": self.growth,
            "initial_mask": self.initial_mask,
            "sparsity_of": self.sparsity_of,
            "vote_ranking": self.vote_ranking,
        }

    @property
    def proximal(self) -> float:
        """FedProx's mu, the weight of a client's term (mu / 2) ||w - w_global||^2; 0 for other strategies."""
        return self.proximal_mu if self.strategy == "fedprox" else 0.0

    def absolute_paths(self) -> Self:
        """A copy with absolute paths, because Flower's runtime has another working directory."""
        flat = self.flat()
        changes = {key: absolute(value) for key, value in flat.items() if key in OWN and is_own(value)}
        paths = {key: flat[key] for key in ("data-dir", "init", "logdir", "outfile", "resume")}
        held = [(absolute(name) if is_own(name) else name, share) for name, share in entries_of(self.client_models)]
        changes["client-models"] = ",".join(":".join(filter(None, entry)) for entry in held)
        changes["tracker"] = ",".join(absolute(name) if is_own(name) else name for name in self.trackers)
        paths |= {"distribution": self.distribution} if self.distribution.endswith(".csv") else {}
        for key in ("dataset", "distill-data"):
            if flat[key].endswith(tuple(FILES)) or ("/" in flat[key] and not is_own(flat[key])):
                paths[key] = flat[key]
        if "/" in self.tokenizer or "." in self.tokenizer:
            paths["tokenizer"] = self.tokenizer
        return self.replace(**{key: str(Path(p).expanduser().absolute()) for key, p in paths.items() if p}, **changes)

    @property
    def trackers(self) -> list[str]:
        """The names of the trackers."""
        return self.tracker.split(",") if self.tracker else []

    def worker_count(self) -> int:
        """Processes for a cohort: ``workers``, or one for each core, but never more than clients in a cohort."""
        if self.workers != "auto":
            return min(self.workers, self.clients_per_round)
        return max(1, min(core_count(), self.clients_per_round))

    def flat(self) -> dict[str, Any]:
        """The settings by kebab-case name; TOML, YAML and Flower's ConfigRecord can hold their values."""
        dumped = self.model_dump(by_alias=True)
        return {key: dumped[key] for key in KEYS}

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return self.from_mapping({**self.flat(), **changes})


GROUPS: tuple[type[Settings], ...] = Config.__bases__
"""The groups of settings, in the order of ``--help`` and of ``config.yaml``."""

KEYS = tuple(name.replace("_", "-") for group in GROUPS for name in group.model_fields)
"""The kebab-case names of all settings."""

OWN = ("dataset", "distribution", "model", "optimizer", "strategy", "aggregator", "compressor", "downlink-compressor",
       "topology", "distill-data")  # fmt: skip
"""Settings that may name an object of the user's own."""


def unknown_key(key: str, prefix: str = "") -> str:
    """The error line for an unknown key, with the nearest key that exists."""
    near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.6)
    hint = f"; did you mean {prefix}{near[0]}?" if near else "; see --help"
    return f"unknown setting {prefix}{key}{hint}"


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return unknown_key(key)
    wanted = " or ".join(
        e["msg"].removeprefix("Input ").removeprefix("Value error, ").partition(", unable")[0]
        for e in error.errors()
        if e["loc"][:1] == first["loc"][:1]
    ).replace(" or should be", " or")
    if first["type"] == "string_pattern_mismatch":
        wanted = f"should be: {Config.model_fields[key.replace('-', '_')].description}"
    value = "nothing" if first["input"] in (None, "") else str(first["input"])
    shown = repr(value[:60]) if len(value) > 60 or not value.isprintable() else value
    return f"{key} = {shown}: {wanted}"
