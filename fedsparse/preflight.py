"""Finds mistakes before a run that would otherwise show in the middle of it."""

from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.aggregation import result_of
from fedsparse.catalogue import AGGREGATORS, STRATEGIES
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import OWN, Config
from fedsparse.device import memory_of
from fedsparse.errors import ConfigError, PluginError
from fedsparse.experiment import Experiment
from fedsparse.models.speed import recompute
from fedsparse.plugins import blamed, is_own, load, named
from fedsparse.privacy.client_level import ClientLevel
from fedsparse.privacy.one_support import check_one_support
from fedsparse.sparsity import TopologyMethod, weight_layers
from fedsparse.sparsity.depths import part_of
from fedsparse.sparsity.static import Dense
from fedsparse.sparsity.upload_pruning import UploadPruning
from fedsparse.telemetry.progress import human_bytes
from fedsparse.training.batchnorm import check_batches
from fedsparse.training.local_step import local_optimizer
from fedsparse.vector import Layout

CHECKED = (
    *OWN, "client-models", "data-dir", "init", "device", "norm", "weight-bits", "activation-bits", "float-layers",
    "sparsity", "dense-layers", "sparsity-distribution", "upload-pruning",
    "growth", "need-readjust", "seed", "clients", "beta", "classes-per-client", "min-samples", "batch-size",
    "accumulate", "eval-clients", "holdout", "dp-noise", "dp-epsilon", "dp-delta", "dp-noise-by", "rounds",
    "clients-per-round", "secure-aggregation", "distill", "distill-samples", "distill-steps", "seq-length",
    "exits", "depths", "least-depth", "recompute", "recompute-segments", "uplink-budget", "values", "scope",
    "tokenizer", "lowrank-layers", "lowrank-rank", "lowrank-form", "lowrank-min-size", "lora-rank", "lora-layers",
)  # fmt: skip
"""The settings that ``check`` looks at; cells of a sweep that agree in them need one check."""

MEMBERS = {"strategy": ("step", "forget", "state_dict", "load_state_dict"), "aggregator": ("add", "result")}
"""What an object of the user's own must have at least."""

LARGE = 2_000_000
"""Weights of a network that takes noticeable time to build and to run."""

Training = Literal["federated", "central", "none"]
"""What a command trains: clients with samples of their own, one model on all samples, or nothing."""


def check(experiment: Experiment, training: Training = "federated") -> None:
    """Look at all that could stop a run at once.

    Args:
        training: what is to come. Only a federation splits the samples over clients.

    Raises:
        ConfigError: data or a device is missing, the data cannot be split in this way, the model does not fit the
            data, the sparsity cannot be met, or an object of the user's own has a fault.
    """
    config = experiment.config
    for name in config.models:
        _check_network(experiment if name == config.model else Experiment(config.with_model(name)), training)


def _check_network(experiment: Experiment, training: Training) -> None:
    """Look at a run in which all clients hold the network of the experiment."""
    config = experiment.config
    flat = config.flat()
    for key in OWN:
        if is_own(flat[key]):
            with blamed(key, flat[key]):
                load(flat[key])
    _ = experiment.device, experiment.task
    sizes = experiment.training_sizes() if training == "federated" else [experiment.dataset.train_size]
    try:
        model = _check_model(experiment)
        if training != "none":
            check_batches(config, model, experiment.dataset.input_shape, sizes)
        layout = Layout.of(model)
        experiment.load_initial(model)
        if not layout.parameters:
            raise ConfigError(f"model = {config.model}: has no weights to train")
        layers = weight_layers(model, layout, config.dense_layer_names())
        if not isinstance(experiment.method, Dense | UploadPruning):
            experiment.method.counts(layers, config.sparsity)
        _check_own(config, layout)
        if training == "federated":
            _check_federation(experiment, layout)
        _check_codecs(config, layout)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    _check_votes(config, experiment.method)


def _check_codecs(config: Config, layout: Layout) -> None:
    """Make both codecs, and call a compressor of the user's own."""
    both = {"compressor": config.compression(), "downlink-compressor": config.downlink_compression()}
    for key, settings in both.items():
        name = config.flat()[key]
        with blamed(key, name):
            codec = UpdateCodec(layout, **settings)
            if is_own(name):
                update = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
                codec.encode(update, ClientState(), round=1, seed=0)


def _check_votes(config: Config, method: TopologyMethod) -> None:
    if method.clients_choose and not hasattr(named(AGGREGATORS, config.aggregator), "votes"):
        chooser = f"upload-pruning = {config.upload_pruning}"
        if config.upload_pruning == "off":
            chooser = f"topology = {config.topology_method}"
        raise ConfigError(f"aggregator = {config.aggregator}: has no votes, by which {chooser} decides; use mean")


def _check_federation(experiment: Experiment, layout: Layout) -> None:
    config, method = experiment.config, experiment.method
    if config.depths:
        _check_depths(config, layout)
    if len(experiment.participants) < config.clients_per_round:
        raise ConfigError(
            f"least-depth = {config.least_depth}: {len(experiment.participants)} of {config.clients} clients have it, "
            f"and clients-per-round = {config.clients_per_round}; sample fewer clients"
        )
    if config.is_private:
        ClientLevel(config, layout, method)
    if config.secure_aggregation:
        check_one_support("secure-aggregation = true", config, layout, method)
    if config.uplink_budget:
        with blamed("compressor", config.compressor):
            _check_budget(config, layout, method)
    if config.distill == "ensemble":
        _check_ensemble(experiment)


def _check_depths(config: Config, layout: Layout) -> None:
    says = f"depths = {config.depths}"
    if layout.size > layout.parameters:
        instead = "use --norm group" if config.activation_bits == "off" else "leave activation-bits out"
        raise ConfigError(f"{says}: running statistics of layers that a client does not train have no mean; {instead}")
    if not part_of(layout, config.least_depth).mask.any():
        raise ConfigError(
            f"{says}: clients of depth {config.least_depth} would train nothing, because all layers of lora-layers = "
            f"{config.lora_layers} are deeper; choose others, or a larger least-depth"
        )


def _check_ensemble(experiment: Experiment) -> None:
    """Check that the server can hold scores twice: those of the present client, and the sum of those before."""
    _, samples = experiment.unlabelled
    _, targets = experiment.dataset.trial()
    scores, there = targets[0].numel() * experiment.dataset.classes, memory_of(experiment.device)
    needed = 2 * 4 * samples * scores
    if experiment.config.server_distils and needed > there:
        told = f"distill-samples = {samples}: {scores:,} scores of each take {human_bytes(needed)}"
        raise ConfigError(f"{told}, and the server has {human_bytes(there)} of memory; use fewer samples")


def _check_budget(config: Config, layout: Layout, method: TopologyMethod) -> None:
    """Check on an update of random numbers that payloads can be as short and as long as the budget asks."""
    says, share = f"uplink-budget = {config.uplink_budget}", config.uplink_share()
    codec = UpdateCodec(layout, **config.compression())
    update = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    least, most = (
        len(codec.encode(update, ClientState(), round=1, seed=0, density=density)[0])
        for density in (1 / layout.parameters, 1.0)
    )
    if not isinstance(method, Dense):
        most = round(most * (1 - config.sparsity))
    told = f"{says}: an update may have {human_bytes(share)} then, and with compressor = {config.compressor}"
    if share < least:
        raise ConfigError(f"{told} the shortest has {human_bytes(least)}; allow more, or use fewer rounds or clients")
    if share > most:
        raise ConfigError(f"{told} even the longest has only {human_bytes(most)}; leave it out, and use density = 1")


def _check_model(experiment: Experiment) -> nn.Module:
    """The network, after it was called with two samples.

    A large one of ours is built without memory. A small one really runs, because the first call on torch's meta device
    imports torch's compiler, which takes a second; and so does the user's own, which may do what that device cannot.
    """
    config, data = experiment.config, experiment.dataset
    own = is_own(config.model)
    misfit = f"model = {experiment.model_name}: does not fit {data.samples_in_words}"
    inputs, targets = data.trial()
    try:
        with torch.device("meta"):
            large = not own and Layout.of(experiment.network(seed=0)).parameters > LARGE
        with torch.device("meta") if large else nullcontext(), torch.no_grad():
            model = experiment.network(seed=0)
            outputs = model.eval()(inputs.to("meta") if large else inputs)
    except ConfigError:
        raise
    except (RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(f"{misfit}: {error}".splitlines()[0] if own else misfit) from None
    except Exception as error:
        if not own:  # such as a network for images that takes the shape apart
            raise ConfigError(misfit) from error
        with blamed("model", config.model):
            raise error
    if own:
        if not isinstance(outputs, Tensor):
            raise ConfigError(f"model = {config.model}: should return a tensor, not {type(outputs).__name__}")
        try:
            experiment.task.loss(outputs, targets)
        except (RuntimeError, IndexError, ValueError) as error:
            line = f"model = {config.model}: an output of shape {tuple(outputs.shape)} does not fit the labels"
            raise ConfigError(f"{line}: {error}".splitlines()[0]) from None
    if config.recompute:
        try:
            recompute(model, config.recompute_segments)
        except ValueError as error:
            says = f"recompute-segments = {config.recompute_segments}"
            raise ConfigError(f"{says}: model = {experiment.model_name} {error}; use blocks") from None
    return model


def _check_own(config: Config, layout: Layout) -> None:
    """Make one of each object of the user's own that a round needs, and look at it."""
    made: dict[str, Any] = {}
    if is_own(config.strategy):
        with blamed("strategy", config.strategy):
            made["strategy"] = named(STRATEGIES, config.strategy)(config, layout.parameters)
            _check_step(config.strategy, made["strategy"], layout.parameters)
    if is_own(config.aggregator):
        with blamed("aggregator", config.aggregator):
            mask = torch.ones(layout.parameters, dtype=torch.bool)
            made["aggregator"] = named(AGGREGATORS, config.aggregator)(layout.size, mask)
    for key, thing in made.items():
        if missing := [name for name in MEMBERS[key] if not hasattr(thing, name)]:
            raise ConfigError(f"{key} = {config.flat()[key]}: should have {', '.join(missing)}")
    if "aggregator" in made:
        with blamed("aggregator", config.aggregator):
            codec = UpdateCodec(layout, "none")
            payload, _ = codec.encode(np.ones(layout.size, np.float32), ClientState(), round=1, seed=0)
            made["aggregator"].add(codec.decode(payload), 1)
            result_of(made["aggregator"], layout.size)
    if is_own(config.optimizer):
        layer = nn.Linear(1, 2, bias=False)
        layer.weight.grad = torch.ones(2, 1)
        optimizer = local_optimizer(config, layer, round=1)
        with blamed("optimizer", config.optimizer):
            optimizer.step()


def _check_step(name: str, optimizer: Any, parameters: int) -> None:
    if hasattr(optimizer, "step"):
        step = optimizer.step(torch.zeros(parameters))
        if not isinstance(step, Tensor) or step.shape != (parameters,):
            raise PluginError(f"{name}: step should return a tensor of shape ({parameters},), as it gets")
