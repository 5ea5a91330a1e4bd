"""One typed, validated Config: the same names on the command line, in YAML and in Flower's run config.

A field ``clients_per_round`` is ``--clients-per-round``, ``clients-per-round:`` and ``clients-per-round=``, and its
docstring is its ``--help``. Precedence: defaults, then ``--config FILE``, then flags.
"""

import difflib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedsparse.compression import COMPRESSORS, FACTORIZATIONS, PRESETS, VALUES, UpdateCodec, resolve
from fedsparse.models import MODELS
from fedsparse.network import Network, Quantity
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import METHODS
from fedsparse.sparsity.densities import DISTRIBUTIONS
from fedsparse.sparsity.static import Static
from fedsparse.vector import Layout


class ConfigError(ValueError):
    """A mistake of the user's in a flag, a file or a run config, told in one line."""


def one_of(choices: Mapping[str, Any] | tuple[str, ...]) -> Any:
    """A string field that must name one of ``choices``."""
    return Literal[tuple(choices)]


FIXED = tuple(name for name, method in METHODS.items() if issubclass(method, Static))
"""Topologies that never change."""


class Config(BaseModel):
    """Every setting of an experiment. Frozen; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    # Data and who holds it
    dataset: str = "fashion-mnist-mini"
    """fashion-mnist-mini (embedded), mnist, fashion-mnist, cifar10, cifar100, or the path of an .npz file."""
    data_dir: str = Field("data", min_length=1)
    """Folder that data sets are read from, and downloaded into when absent."""
    distribution: Literal["iid", "dirichlet", "shards"] = "iid"
    """How samples are spread over clients."""
    beta: float = Field(0.1, gt=0)
    """Concentration of the Dirichlet distribution; smaller is more heterogeneous."""
    classes_per_client: int = Field(2, ge=1)
    """Shards a client receives under `shards` (McMahan's pathological split)."""
    min_samples: int = Field(2, ge=1)
    """Fewest samples a client may hold; the few moved to keep it are reported."""
    augment: bool = False
    """Random crops and flips, as usual for the data set, while training."""

    # Model
    model: one_of(MODELS) = "cnn-small"  # type: ignore[valid-type]
    """Network; its input shape and classes come from the data set."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation layers of the torchvision models."""

    # Federation
    strategy: Literal["fedavg", "fedavgm", "fedadam", "fedprox"] = "fedavg"
    """What the server does with the averaged update."""
    rounds: int = Field(150, ge=1, le=10**9)
    """Rounds of training."""
    clients: int = Field(100, ge=1, le=10**9)
    """Clients in the federation."""
    clients_per_round: int = Field(10, ge=1)
    """Clients sampled each round (the cohort)."""
    server_lr: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto"] = "auto"
    """Server learning rate; auto: 1, of fedadam 0.01."""
    server_momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of fedavgm, and beta_1 of fedadam."""
    server_beta2: float = Field(0.99, ge=0, lt=1)
    """beta_2 of fedadam."""
    server_tau: float = Field(1e-3, gt=0)
    """Adaptivity tau of fedadam: added to the root of the second moment."""
    proximal_mu: float = Field(0.01, ge=0, le=1e6)
    """Weight mu of fedprox's term (mu / 2) ||w - w_global||^2."""

    # Local training
    epochs: int = Field(1, ge=1, le=10**9)
    """Local epochs a round."""
    batch_size: int = Field(32, ge=1, le=2**31)
    """Samples a local step."""
    lr: float = Field(0.1, gt=0, le=1e6)
    """Learning rate of the local SGD."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of the local SGD, started anew each round."""
    weight_decay: float = Field(0.0, ge=0, le=1e6)
    """L2 penalty of the local SGD."""
    clip_norm: float = Field(0.0, ge=0)
    """Largest norm of a local gradient; 0 leaves it alone."""
    lr_schedule: Literal["constant", "cosine", "step"] = "cosine"
    """Learning rate over the rounds: cosine to 0, or a tenth after half and again after three quarters of them."""

    # Speed: each changes how fast, not what
    amp: Literal["off", "bf16", "fp16"] = "off"
    """Mixed precision of the local training; fp16 comes with a loss scaler."""
    accumulate: int = Field(1, ge=1)
    """Pieces a batch is trained in, one after the other, to save memory."""
    compile: bool = False
    """torch.compile the model, once a process (twice where two threads share a GPU); pays for long runs."""
    recompute: bool = False
    """Activation checkpointing: recompute blocks in the backward pass to save memory."""
    cohort_batching: Literal["auto", "on", "off"] = "auto"
    """Train the clients of a cohort at once, weights stacked (local engine); auto: small models on a GPU."""

    # Communication
    compressor: one_of((*COMPRESSORS, *PRESETS)) = "hggtopk"  # type: ignore[valid-type]
    """How an update is made small before upload; none sends it whole."""
    density: float = Field(0.06, gt=0, le=1)
    """Share of an update's coordinates that is uploaded; of a factored layer, that its factors may have."""
    values: one_of(("auto", *VALUES)) = "auto"  # type: ignore[valid-type]
    """Precision of uploaded values; auto: the compressor's own if it names one, else f16 (unbiased: bf16)."""
    error_feedback: bool | Literal["auto"] = "auto"
    """Keep what was not sent and add it to the next update; auto: unless the update is unbiased."""
    unbiased: bool | Literal["auto"] = "auto"
    """Round at random, to the update in expectation (none, randomk; ternary: to the clipped update); auto: where the
    compressor's paper does."""
    scope: Literal["auto", "global", "layer"] = "auto"
    """Select, and scale values, over the whole update or within each layer; auto: global, or as a method has it."""
    layer_budget: Literal["proportional", "energy"] = "proportional"
    """With scope layer: coordinates in proportion to a layer's size, or to the squared norm of its update."""
    warmup_rounds: int = Field(0, ge=0)
    """Rounds over which the density falls exponentially to its final value; 0: it is constant."""
    residual_dtype: Literal["f32", "bf16"] = "f32"
    """Precision of what a client keeps for its next update; bf16 takes half the memory."""
    residual_decay: float = Field(0.88, ge=0, le=1)
    """Factor on what a client kept, for every round that it missed since; 1, as in the papers, discards nothing."""
    threshold: float = Field(0.01, gt=0)
    """threshold: the magnitude from which coordinates are uploaded; the density has no say."""
    dgc_momentum: float = Field(0.9, ge=0, lt=1)
    """dgc: momentum of a client's updates."""
    dgc_clipping: float = Field(0.0, ge=0)
    """dgc: largest norm of an update before it is added up; 0 leaves it alone."""
    rank: int = Field(0, ge=0)
    """lowrank, powersgd: largest rank of a layer; 0: what the density allows."""
    lowrank_energy: float = Field(0.95, gt=0, le=1)
    """lowrank: share of a layer's squared norm to keep, if the rank allows."""
    lowrank_power_iterations: int = Field(1, ge=0)
    """lowrank: more find better factors, slower."""
    lowrank_residual_iterations: int = Field(0, ge=0)
    """lowrank: times that what is left is factored again, within the same rank."""
    lowrank_balance: bool = False
    """lowrank: scale rows to equal magnitude before factoring."""
    lowrank_sparse: bool = False
    """lowrank: sketch with a sparse random matrix, which is faster."""
    downlink_compressor: one_of((*COMPRESSORS, *PRESETS)) = "none"  # type: ignore[valid-type]
    """How the server sends its weights: none whole, others as compressed changes, with error feedback of its own."""
    downlink_density: float = Field(0.05, gt=0, le=1)
    """Share of the coordinates that a change of the global weights carries."""
    downlink_values: one_of(("auto", *VALUES)) = "auto"  # type: ignore[valid-type]
    """Precision of the values in changes of the global weights; auto as for values."""

    # Simulated network: seconds a round would take over such links, beside the real ones
    uplink_mbps: str = ""
    """Megabits a second that a client uploads: a number, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA over clients."""
    downlink_mbps: str = ""
    """Megabits a second that a client downloads; likewise."""
    latency_ms: str = ""
    """Milliseconds one way; likewise."""
    compute_seconds: float = Field(0.0, ge=0)
    """Seconds of a client's computation on the simulated clock; 0 takes the measured ones."""
    round_deadline: float = Field(0.0, ge=0)
    """Simulated seconds after which a client's update comes too late; 0 for never. It needs compute-seconds."""

    # Topology: which weights exist
    sparsity: float = Field(0.0, ge=0, lt=1)
    """Share of the convolution and linear weights that do not exist; what remains is all that travels."""
    topology: one_of(("auto", *METHODS)) = "auto"  # type: ignore[valid-type]
    """How the weights that exist are chosen. auto: feddst with --need-readjust, else static where sparsity is above 0;
    dense keeps them all, whatever the sparsity."""
    sparsity_distribution: one_of(DISTRIBUTIONS) = "erk"  # type: ignore[valid-type]
    """Density of each layer: erk (Erdos-Renyi kernel: small layers stay denser), er (whatever the kernels, so that
    convolutions stay denser) or uniform."""
    dense_layers: str = "first,last"
    """Layers that are never pruned, with commas: first, last, or names of layers. They count towards the sparsity."""
    need_readjust: bool = False
    """Let the topology change during training: by feddst, unless ``topology`` names another one that does."""
    readjustment_ratio: float = Field(0.3, ge=0, le=1)
    """Share of each layer's weights that a readjustment exchanges: this at round 0, decaying by a cosine."""
    readjustment_interval: int = Field(10, ge=1)
    """Rounds from one readjustment to the next."""
    readjustment_end: int = Field(0, ge=0)
    """First round without readjustment, so that what was grown last is trained; 0 for three quarters of the rounds."""
    growth: Literal["gradient", "random", "momentum"] = "gradient"
    """What ranks the weights that may grow: gradient magnitude, chance, or a moving average of gradients."""

    # Before upload
    upload_pruning: Literal["off", "sparsegpt", "magnitude"] = "off"
    """Prune the trained weights in one shot and upload the survivors, instead of a compressor's choice."""
    upload_sparsity: float = Field(0.5, ge=0, lt=1)
    """Share of the weights that upload pruning removes, in every layer that it prunes."""
    nm: str = ""
    """N:M, such as 2:4: pruning keeps N of every M input channels, whatever the sparsity."""

    # Evaluation
    eval_every: int = Field(5, ge=1)
    """Rounds between two evaluations on the pooled test set; the last round is always evaluated."""
    eval_clients: bool = False
    """Evaluate the cohort on its own held-out samples too."""
    holdout: float = Field(0.2, gt=0, lt=1)
    """Share of a client's samples held out for --eval-clients."""

    # The run
    name: str = Field("", pattern=r"^[\w.\- ]{0,100}$")
    """Name of the run folder, of letters, digits, spaces and -_. alone; made of the main settings when empty."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Same seed, same bits, in every engine."""
    engine: Literal["local", "flower"] = "local"
    """local: in this process. flower: `flwr run`, on Flower's own runtime."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")
    """auto, cpu, mps, cuda or cuda:N."""
    workers: int | Literal["auto"] = "auto"
    """Processes that train a cohort side by side (local engine)."""
    threads: int = Field(1, ge=1, le=1024)
    """Torch threads of each client."""
    state_store: Literal["auto", "context", "files"] = "auto"
    """Where clients keep their residuals: in Flower's Context, or in files of the run folder when they are large; of
    clients that one process trains on a GPU, the Context is on it."""
    client_timeout: float = Field(0.0, ge=0, le=1e8)
    """Seconds after which the local engine gives a client up; 0 for never. A new worker has 30 more, once."""
    round_timeout: float = Field(3600.0, gt=0, le=1e8)
    """Seconds after which the server goes on without a missing reply."""
    logdir: str = Field("runs", min_length=1)
    """Where run folders are made."""
    outfile: str = ""
    """Also write the result as JSON to this file."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.clients_per_round > self.clients:
            raise ValueError(
                f"clients-per-round = {self.clients_per_round} is more than clients = {self.clients}: "
                "sample fewer clients or make more"
            )
        n, _, m = self.nm.partition(":")
        if self.nm and not (n.isdecimal() and m.isdecimal() and 0 < int(n) <= int(m)):
            raise ValueError(f"nm = {self.nm}: should be N:M with 1 <= N <= M, such as 2:4")
        if self.upload_pruning != "off" and self.method != "dense":
            raise ValueError(
                f"upload-pruning = {self.upload_pruning} chooses the topology; leave topology, sparsity and "
                "need-readjust out, and give upload-sparsity or nm"
            )
        if self.workers != "auto" and self.workers < 1:
            raise ValueError(f"workers = {self.workers}: should be auto or at least 1")
        nothing = Layout((), 0, 0)
        UpdateCodec(nothing, **self.compression())  # says what contradicts what
        UpdateCodec(nothing, **self.downlink_compression())
        sparse = self.method not in ("dense", "small-dense") or self.upload_pruning != "off"
        for key, name in (("compressor", self.compressor), ("downlink-compressor", self.downlink_compressor)):
            if sparse and name in FACTORIZATIONS:
                raise ValueError(
                    f"{key} = {name} factors layers as matrices, and what exists of a sparse one is none: choose a "
                    "compressor of coordinates, or leave sparsity and upload-pruning out"
                )
        if self.round_deadline and not self.compute_seconds:
            raise ValueError(
                f"round-deadline = {self.round_deadline:g} needs compute-seconds: by measured seconds, who is late "
                "would depend on what else this machine does"
            )
        if self.readjustment_end > self.rounds:
            raise ValueError(f"readjustment-end = {self.readjustment_end} is more than rounds = {self.rounds}")
        if self.topology not in ("auto", "dense") and not self.sparsity:
            raise ValueError(f"topology = {self.topology} with sparsity = 0: every weight exists; give a sparsity")
        if self.need_readjust and not self.sparsity:
            raise ValueError("need-readjust with sparsity = 0: every weight exists, and none can be grown")
        if self.need_readjust and self.topology in FIXED:
            raise ValueError(
                f"need-readjust with topology = {self.topology}, which never changes; leave one of them out"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _refuse_switches_for_numbers(cls, settings: Any) -> Any:
        """YAML's yes and true would pass as the number 1."""
        for key, value in settings.items():
            field = cls.model_fields.get(str(key).replace("-", "_"))
            if isinstance(value, bool) and field is not None and field.annotation in (int, float):
                raise ValueError(f"{key} = {str(value).lower()}: should be a number")
        return settings

    @field_validator("uplink_mbps", "downlink_mbps", "latency_ms", mode="before")
    @classmethod
    def _accept_plain_numbers(cls, value: Any) -> Any:
        """YAML and TOML give a number where one is written."""
        return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("uplink_mbps", "downlink_mbps", "latency_ms")
    @classmethod
    def _check_quantity(cls, text: str) -> str:
        if text:
            Quantity.parse(text)
        return text

    def network(self) -> Network:
        """The clients' simulated links; false when there are none."""
        return Network(self.uplink_mbps, self.downlink_mbps, self.latency_ms, self.seed)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Validate keys and values, in kebab or snake case, from wherever they come.

        Raises:
            ConfigError: one line that names the key, the value and what is allowed.
        """
        try:
            return cls.model_validate({str(key).replace("_", "-"): value for key, value in mapping.items()})
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    def partitioning(self) -> dict[str, Any]:
        """The arguments of ``partitions.partition`` behind the labels."""
        return {
            "distribution": self.distribution,
            "clients": self.clients,
            "seed": derive_seed(self.seed, "partition"),
            "beta": self.beta,
            "classes_per_client": self.classes_per_client,
            "min_samples": self.min_samples,
        }

    @property
    def method(self) -> str:
        """The name in ``METHODS`` that the settings mean."""
        if self.topology != "auto":
            return str(self.topology)
        return "feddst" if self.need_readjust else "static" if self.sparsity else "dense"

    def readjustment(self) -> dict[str, Any]:
        """The arguments of a topology's ``Method``."""
        return {
            "sparsity": self.sparsity,
            "distribution": self.sparsity_distribution,
            "ratio": self.readjustment_ratio,
            "interval": self.readjustment_interval,
            "end": self.readjustment_end or math.ceil(self.rounds * 3 / 4),
            "growth": self.growth,
        }

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """``nm`` as two numbers; None when it is empty."""
        n, _, m = self.nm.partition(":")
        return (int(n), int(m)) if m else None

    def dense_layer_names(self) -> list[str]:
        """``dense_layers``, one by one."""
        return [name.strip() for name in self.dense_layers.split(",") if name.strip()]

    def compression(self) -> dict[str, Any]:
        """The arguments of ``UpdateCodec`` behind the layout, for updates.

        Raises:
            ValueError: settings that contradict each other.
        """
        chosen = resolve(self.compressor, self.values, self.error_feedback, self.unbiased, self.scope)
        names = ("density", "warmup_rounds", "residual_dtype", "residual_decay")
        chosen |= {name: getattr(self, name) for name in names} | {"budget": self.layer_budget}
        return chosen | self._options(chosen["compressor"])

    def downlink_compression(self) -> dict[str, Any]:
        """The same for changes of the global weights. Their rest is fed back by the next difference: see Downlink."""
        chosen = resolve(self.downlink_compressor, self.downlink_values, error_feedback=True)
        if chosen["compressor"] == "dgc":
            raise ValueError("downlink-compressor = dgc: its momentum is a client's; choose hggtopk, the same without")
        chosen |= {"error_feedback": False, "density": self.downlink_density}
        return chosen | self._options(chosen["compressor"])

    @property
    def downlink_is_whole(self) -> bool:
        """Whether every message carries the global weights, and clients need not keep them."""
        return self.downlink_compressor == "none" and self.downlink_values in ("auto", "f32")

    def _options(self, compressor: str) -> dict[str, Any]:
        """A compressor's own arguments."""
        lowrank = ("energy", "power_iterations", "residual_iterations", "balance", "sparse")
        options: dict[str, dict[str, Any]] = {
            "dgc": {"momentum": self.dgc_momentum, "clipping": self.dgc_clipping or None},
            "threshold": {"threshold": self.threshold},
            "powersgd": {"rank": self.rank},
            "lowrank": {"rank": self.rank} | {name: getattr(self, f"lowrank_{name}") for name in lowrank},
        }
        return options.get(compressor, {})

    def absolute_paths(self) -> Self:
        """The same, with paths that hold wherever the run happens: Flower's runtime has another working directory."""
        paths = {"data-dir": self.data_dir, "logdir": self.logdir, "outfile": self.outfile}
        if self.dataset.endswith(".npz"):
            paths["dataset"] = self.dataset
        return self.replace(**{key: str(Path(p).expanduser().absolute()) for key, p in paths.items() if p})

    def worker_count(self) -> int:
        """Processes for a cohort: as asked, or as many as there are cores and clients to use them."""
        if self.workers != "auto":
            return min(self.workers, self.clients_per_round)
        return max(1, min(core_count(), self.clients_per_round))

    def flat(self) -> dict[str, Any]:
        """The settings under their kebab-case names, of types that TOML, YAML and Flower's ConfigRecord hold."""
        return self.model_dump(by_alias=True)

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return self.from_mapping({**self.flat(), **changes})


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS


KEYS = tuple(name.replace("_", "-") for name in Config.model_fields)


def unknown_key(key: str, prefix: str = "") -> str:
    """The line for a key that no field has, with the nearest one that exists."""
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
    wanted = first["msg"].removeprefix("Input ").removeprefix("Value error, ").partition(", unable")[0]
    if first["type"] == "string_pattern_mismatch":
        wanted = f"should be: {Config.model_fields[key.replace('-', '_')].description}"
    value = "nothing" if first["input"] is None else str(first["input"])
    shown = repr(value[:60]) if len(value) > 60 or not value.isprintable() else value
    return f"{key} = {shown}: {wanted}"
