"""Deep Compression of a trained checkpoint into one small file, and back."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedsparse.commands.trained_models import Scores, checked_beside, checked_file, loaded, refuse_few_bits
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, Diverged, RunFailed
from fedsparse.experiment import Experiment
from fedsparse.files import replaced
from fedsparse.models.initial import VOCABULARY
from fedsparse.packing.packed_file import PackedFault, Sizes, pack_state, unpack_state
from fedsparse.packing.shared_weights import SharedWeights, share, trained
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.sparsity.one_shot import prune_model
from fedsparse.sparsity.static import Dense
from fedsparse.telemetry.folder import create_run_folder, write_json
from fedsparse.telemetry.progress import human_bytes
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.loop import train
from fedsparse.vector import FlatModel

KERNELS, MATRICES = 256, 32
"""Clusters of a convolution and of a linear layer or table: the 8 and 5 bits of the paper (section 5)."""
MEMBERS = 8
"""Weights other than 0 of a cluster at least, on average: else a layer's values would take as much as its weights."""
SLOWER = 0.1
"""Factor on the learning rate of the run: the weights are good already, and a larger rate would leave them first."""


def pack(
    settings: Given, checkpoint: str = "", sparsity: str = "", clusters: str = "auto", tune: str = "2"
) -> None:  # fmt: skip
    """`main.py pack`: print the metric of the task after each step, and every layer's bits a weight; write the file.

    Args:
        settings: data set, model and seed; they override the ``config.yaml`` beside the checkpoint.
        checkpoint: the file of a state dict, such as a run's ``model.pt``.
        sparsity: prune every layer that is not in ``dense-layers`` to it; empty for the zeros that are there.
        clusters: values of each layer; auto for the paper's.
        tune: passes over the training data after pruning, and again after clustering.

    Raises:
        ConfigError: one of these is missing or wrong; the checkpoint is missing, damaged, or of another model.
        RunFailed: the file does not give back what was packed.
    """
    path = checked_file(checkpoint, "checkpoint", "pack")
    share_of, most, passes = _asked(sparsity, clusters, tune)
    config = checked_beside(settings, path)
    refuse_few_bits(config, path)
    torch.set_num_threads(config.threads)
    packing = _Packing(loaded(config, path))
    packing.scores.measure("before", packing.experiment)
    if share_of:
        packing.prune(share_of, passes)
    state = packing.cluster(most, passes)
    data, sizes = pack_state(state, packing.experiment.dataset.vocabulary)
    folder = create_run_folder(config.logdir, config.name or "pack")
    file = folder / "model.fspk"
    _write(file, data)
    packing.read_back(file, state)
    float_bytes = sum(t.numel() * t.element_size() for t in packing.module.state_dict().values())
    asked = {"checkpoint": checkpoint, "sparsity": share_of, "clusters": clusters, "tune": passes}
    layers = {name: s._asdict() for name, s in sizes.items()}
    result = {"command": "pack", "config": config.flat(), **asked, packing.scores.name: packing.scores.values}
    write_json(folder / "result.json", result | {"bytes": len(data), "float-bytes": float_bytes, "layers": layers})
    _print(sizes)
    print(f"{human_bytes(len(data))} in {file}, {float_bytes / len(data):.1f} times below {human_bytes(float_bytes)}")


def unpack(settings: Given, file: str, out: str = "") -> None:
    """`main.py unpack FILE`: write the state dict of a packed model.

    Args:
        settings: none, because the file has all that it takes.
        file: that ``pack`` wrote.
        out: where to write it; empty for ``model.pt`` beside the file.

    Raises:
        ConfigError: there is no such file, or it is damaged; or a setting was given.
    """
    if settings:
        raise ConfigError(f"unpack takes a FILE and --out, and no settings: leave {', '.join(settings)} out")
    place = Path(out) if out else Path(file).with_name("model.pt")
    try:
        state, vocabulary = unpack_state(Path(file).read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except PackedFault as fault:
        raise ConfigError(f"{file}: {fault}") from None
    content = io.BytesIO()
    torch.save(state, content)
    if vocabulary:
        _write(place.with_name(VOCABULARY), f"{vocabulary}\n".encode())
    _write(place, content.getvalue())
    print(f"{len(state)} tensors in {place}")


class _Packing:
    """A checkpoint on its way.

    Attributes:
        scores: the metric of the task after each step.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.scores = experiment, Scores(experiment.task)
        self.module = experiment.model.module

    def prune(self, sparsity: float, passes: int) -> None:
        """Prune by magnitude, layer by layer, and train the weights that are left (section 2 of the paper)."""
        experiment, model = self.experiment, self.experiment.model
        names = experiment.config.dense_layer_names()
        batch = experiment.calibration(experiment.all_samples, 2, derive_seed(experiment.config.seed, "calibration"))
        masks = prune_model(self.module, batch, sparsity, method="magnitude", dense_layers=names)
        if not masks:
            raise ConfigError(f"model = {experiment.config.model}: has no layer to prune; dense-layers says which stay")
        self.scores.measure("after pruning", experiment)
        mask = torch.ones(model.layout.parameters, dtype=torch.bool, device=model.vector.device)
        for entry in model.layout.trainable:
            if entry.name in masks:
                mask[entry.slice] = masks[entry.name].flatten()
        self.train(model, passes, Topology(experiment.layers, mask))
        if passes:
            self.scores.measure("after training what is left", experiment)

    def cluster(self, clusters: int, passes: int) -> dict[str, Tensor | SharedWeights | str]:
        """Cluster the weights and train their shared values; the state of the module, with shared weights in it."""
        many = {name: p for name, p in self.module.named_parameters() if p.dim() > 1 and p.numel() > MEMBERS}
        shared = dict[str, SharedWeights]()
        for name, p in many.items():
            most = max(int(p.count_nonzero()) // MEMBERS, 1)
            shared[name] = SharedWeights.of(p, min(clusters or (KERNELS if p.dim() > 2 else MATRICES), most))
        state = _with_names(self.module)
        share(self.module, shared)
        model = FlatModel(self.module)
        self.scores.measure("after clustering", self.experiment, model)
        self.train(model, passes)
        shared = trained(self.module, shared)
        now = self.module.state_dict()
        return {
            name: shared.get(name, tensor if isinstance(tensor, str) else now.get(name, tensor))
            for name, tensor in state.items()
        }

    def train(self, model: FlatModel, passes: int, topology: Topology | None = None) -> None:
        """Passes over the pooled training data, at a rate that falls to 0."""
        experiment = self.experiment
        tuning = {"rounds": max(passes, 1), "epochs": 1, "local_steps": 0, "lr_warmup_rounds": 0, "strategy": "fedavg"}
        lr = SLOWER * experiment.config.lr
        config = experiment.config.replace(**tuning, readjustment_end=0, lr=lr, lr_schedule="cosine")
        for round in range(1, passes + 1):
            seed = derive_seed(config.seed, "train", round=round)
            local = LocalTopology(model, topology, Dense(sparsity=0.0), round, seed) if topology else None
            fetch, samples = experiment.fetch(experiment.all_samples), len(experiment.all_samples)
            settings: dict[str, Any] = {"round": round, "seed": seed, "timer": StageTimer(experiment.device)}
            score = train(model, fetch, samples, config, experiment.task, topology=local, **settings)
            if not math.isfinite(score.loss):
                raise Diverged(f"tuning: the loss is {score.loss}; lower the learning rate, or use --tune 0")

    def read_back(self, file: Path, state: Mapping[str, Tensor | SharedWeights | str]) -> None:
        """See that the file gives the state to the bit, and evaluate it.

        Raises:
            RunFailed: it does not.
        """
        back, _ = unpack_state(file.read_bytes())
        for name, tensor in state.items():
            sent = back[tensor] if isinstance(tensor, str) else tensor
            whole = sent.tensor() if isinstance(sent, SharedWeights) else sent.cpu()
            if not torch.equal(back[name], whole):
                raise RunFailed(f"{file}: {name} is not what was packed")
        network = self.experiment.network(seed=0).to(self.experiment.device)
        network.load_state_dict(back)
        self.module = network
        self.scores.measure("of the file", self.experiment, FlatModel(network))


def _asked(sparsity: str, clusters: str, tune: str) -> tuple[float, int, int]:
    """The sparsity, the clusters (0 for the paper's) and the passes, as numbers."""
    try:
        share_of = float(sparsity or 0)
    except ValueError:
        share_of = -1.0
    if not 0 <= share_of < 1:
        raise ConfigError(f"sparsity = {sparsity}: should be at least 0 and less than 1")
    if clusters != "auto" and not (clusters.isdecimal() and 1 <= int(clusters) <= KERNELS):
        raise ConfigError(f"clusters = {clusters}: should be auto, or 1 to {KERNELS}")
    if not tune.isdecimal():
        raise ConfigError(f"tune = {tune}: should be a number of passes, or 0")
    return share_of, 0 if clusters == "auto" else int(clusters), int(tune)


def _with_names(module: nn.Module) -> dict[str, Tensor | str]:
    """The state dict, with a tied tensor as the name under which it stands already."""
    first: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    return {
        name: tensor if (known := first.setdefault(id(tensor), name)) == name else known
        for name, tensor in state.items()
    }


def _write(path: Path, content: bytes) -> None:
    try:
        with replaced(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from None


def _print(sizes: dict[str, Sizes]) -> None:
    table = Table("layer", box=None, padding=(0, 2, 0, 0))
    for heading in ("weights", "kept", "values", "entropy", "Huffman", "ours", "stored"):
        table.add_column(heading, justify="right")
    everything = Sizes(*(sum(column) for column in zip(*sizes.values(), strict=True))) if sizes else None
    rows = [*sizes.items(), *([("all of these", everything)] if everything else [])]
    for name, s in rows:
        bits = (s.entropy, 8 * s.huffman, 8 * s.ours, 8 * s.stored)
        shares = (f"{b / max(s.weights, 1):.3f}" for b in bits)
        table.add_row(name, str(s.weights), f"{s.kept / max(s.weights, 1):.2%}", str(s.clusters), *shares)
    Console(markup=False, emoji=False).print(table)
    print("entropy and sizes in bits a weight; stored: the shorter coding of each part, and the values")
