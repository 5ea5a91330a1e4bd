"""The server distils a cohort's ensemble into the mean of its models."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.data import load_dataset
from fedsparse.errors import ConfigError, Diverged
from fedsparse.experiment import Experiment
from fedsparse.preflight import check
from fedsparse.provenance import provenance_of
from fedsparse.sparsity import Topology
from fedsparse.strategies.ensemble import Ensemble
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.server_topology import ServerTopology
from fedsparse.vector import FlatModel
from tests.strategies.federation import play

PLANE = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
SIGNS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
"""Of a point in each of the four quadrants, which are the classes."""
QUADRANTS = (PLANE[:, :1] < 0).long().squeeze(1) * 2 + (PLANE[:, 1] < 0).long()


def expert(axis: int, sign: float) -> nn.Module:
    """A classifier that knows on which side of one axis a point is.

    Units 0 to 3 look along the first axis and the others along the second. ``sign`` = -1 gives the same function in
    other weights, because tanh is odd, so that the mean of the weights of two experts may know nothing.
    """
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        for unit in range(8):
            model[0].weight[unit, unit // 4] = 3 * sign
        own = slice(4 * axis, 4 * axis + 4)
        model[2].weight[:, own] = sign * SIGNS[:, axis : axis + 1]
    return model


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.fixture
def experiment(tiny_dataset: str) -> Experiment:
    settings = {"dataset": tiny_dataset, "distill": "ensemble", "distill-samples": 150, "clients": 10}
    made = Experiment(Config.from_mapping(settings | {"distill-steps": 300, "distill-lr": 0.02}))
    made.model = FlatModel(expert(0, 1))
    no_label = torch.full((200,), -1)  # which a loss of labels would refuse
    made.fetch = lambda indices, generator=None: lambda positions: (PLANE[positions], no_label[positions])  # type: ignore
    return made


def server_model(experiment: Experiment, weights: Tensor, mask: Tensor | None = None) -> ServerModel:
    """The network of an experiment with these weights."""
    layers, parameters = experiment.layers, experiment.layout.parameters
    topology = Topology.full(layers, parameters) if mask is None else Topology(layers, mask)
    return ServerModel(experiment, ServerTopology(experiment, topology), weights)


def add(ensemble: Ensemble, experiment: Experiment, weights: Tensor) -> None:
    """Add a client that trained from zeros to these weights."""
    codec = UpdateCodec(experiment.layout, "none")
    payload, _ = codec.encode(weights.numpy(), ClientState(), round=1, seed=0)
    ensemble.add(server_model(experiment, torch.zeros_like(weights)), codec.decode(payload))


def right(model: FlatModel, weights: Tensor) -> float:
    model.vector.copy_(weights)
    with torch.no_grad():
        return (model.module(PLANE).argmax(1) == QUADRANTS).float().mean().item()


def test_the_student_knows_what_two_experts_know_together_where_the_mean_of_their_weights_knows_nothing(
    experiment: Experiment,
) -> None:
    experts = [flat(expert(0, 1)), flat(expert(1, -1))]
    ensemble, mean = Ensemble(experiment), (experts[0] + experts[1]) / 2
    for weights in experts:
        add(ensemble, experiment, weights)
    student = mean.clone()
    ensemble.teach([server_model(experiment, student)], 1)
    model = experiment.model
    assert right(model, student) > 0.95
    assert max(right(model, weights) for weights in experts) < 0.6
    assert right(model, mean) < 0.4


def test_a_weight_that_does_not_exist_stays_zero_while_the_server_distils(experiment: Experiment) -> None:
    ensemble, mask = Ensemble(experiment), torch.ones(60, dtype=torch.bool)
    add(ensemble, experiment, flat(expert(0, 1)))
    layer = experiment.layers[0]
    mask[layer.start : layer.start + 4] = False
    experiment.layers = tuple(type(layer)(**{**vars(entry), "dense": False}) for entry in experiment.layers)
    student = flat(expert(1, 1)).masked_fill(~mask, 0)
    before = student.clone()
    ensemble.teach([server_model(experiment, student, mask)], 1)
    assert not student[~mask].any()
    assert (student != before).sum() > 20


def test_scores_that_are_not_finite_end_the_run_in_one_line(experiment: Experiment) -> None:
    ensemble = Ensemble(experiment)
    add(ensemble, experiment, torch.full((experiment.layout.size,), 3e38))
    with pytest.raises(Diverged, match="round 7: the scores of the clients' models are not finite"):
        ensemble.teach([server_model(experiment, flat(expert(0, 1)))], 7)


def test_a_model_whose_scores_are_not_finite_is_left_out(experiment: Experiment) -> None:
    students = []
    for models in ([flat(expert(0, 1))], [torch.full((experiment.layout.size,), 3e38), flat(expert(0, 1))]):
        ensemble = Ensemble(experiment)
        for weights in models:
            add(ensemble, experiment, weights)
        students.append(flat(expert(1, 1)))
        ensemble.teach([server_model(experiment, students[-1])], 1)
    assert torch.equal(*students)


def test_a_running_variance_that_rounds_to_below_zero_counts_as_zero(experiment: Experiment) -> None:
    experiment.model = FlatModel(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)))
    weights = experiment.model.vector.clone()
    weights[experiment.layout.parameters + 4 :] = -5e-5
    ensemble = Ensemble(experiment)
    add(ensemble, experiment, weights)
    experiment.layers = ()
    ensemble.teach([server_model(experiment, weights)], 1)
    assert weights.isfinite().all()


ENSEMBLE = {"distill": "ensemble", "distill-samples": 40, "distill-steps": 4, "sparsity": 0}


def test_the_servers_samples_are_none_of_the_clients(tiny_dataset: str) -> None:
    settings = {"dataset": tiny_dataset, "distribution": "dirichlet", "clients": 10}
    experiment = Experiment(Config.from_mapping(settings | ENSEMBLE))
    held = np.concatenate([experiment.partition[client] for client in range(10)])
    assert sorted([*held, *experiment.set_apart.tolist()]) == list(range(200))
    assert len(experiment.set_apart) == 40
    shared = Experiment(Config.from_mapping(settings)).partition
    assert len(shared.order) == 200


def test_a_federation_distils_its_ensemble_in_every_round(tiny_dataset: str) -> None:
    distilled, *again = (play(tiny_dataset, rounds=2, **ENSEMBLE) for _ in range(2))
    assert torch.equal(distilled[2].weights, again[0][2].weights)
    undistilled = play(tiny_dataset, rounds=2, **ENSEMBLE | {"distill-lr": 1e-9})
    assert (distilled[1].weights - undistilled[1].weights).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"secure-aggregation": True, "compressor": "none"}, "which secure-aggregation hides"),
        ({"dp-noise": 1}, "past the noise of dp-noise"),
        ({"aggregator": "median"}, "aggregator = median would not guard it"),
        ({"upload-pruning": "magnitude"}, "needs a topology that the server chooses"),
        ({"distribution": "mine.csv"}, "distribution = mine.csv gives all away; give distill-data"),
    ],
)
def test_what_an_ensemble_cannot_be_combined_with_is_one_line(settings: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=r"^distill = ensemble: ") as error:
        Config.from_mapping({"distill": "ensemble"} | settings)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_without_steps_the_server_learns_nothing_and_clients_lack_its_samples_all_the_same(tiny_dataset: str) -> None:
    lacking, undistilled = (
        play(tiny_dataset, rounds=2, **ENSEMBLE | settings)
        for settings in ({"distill-steps": 0}, {"distill-lr": 1e-30})
    )
    assert torch.equal(lacking[-1].weights, undistilled[-1].weights)
    whole = play(tiny_dataset, rounds=2, sparsity=0)
    assert not torch.equal(lacking[-1].weights, whole[-1].weights)


def other_data(tmp_path: Path, samples: int = 60, size: int = 28) -> str:
    """A file of images whose labels are of other classes than those of the clients."""
    rng, file = np.random.default_rng(0), tmp_path / "other.npz"
    images = {f"x_{part}": rng.integers(0, 256, (samples, size, size), np.uint8) for part in ("train", "test")}
    np.savez(file, **images, **{f"y_{part}": np.arange(samples) % 30 for part in ("train", "test")})
    return str(file)


def test_the_server_may_distil_from_another_data_set_and_then_clients_lack_no_samples(
    tiny_dataset: str, tmp_path: Path
) -> None:
    settings = {"dataset": tiny_dataset, "distribution": "dirichlet", "clients": 10} | ENSEMBLE
    config = Config.from_mapping(settings | {"distill-data": other_data(tmp_path)})
    experiment = Experiment(config)
    assert sorted(experiment.partition.order) == list(range(200))
    fetch, count = experiment.unlabelled
    assert count == 40
    inputs, _ = fetch(torch.arange(40))
    own = load_dataset(config.distill_data).fetch(torch.arange(60))(torch.arange(60))[0]
    assert all((own == image).flatten(1).all(1).any() for image in inputs)
    assert provenance_of(experiment)["distill-data-hash"] != provenance_of(experiment)["data-hash"]
    distilled, *again = (play(tiny_dataset, 2, **ENSEMBLE, distill_data=config.distill_data) for _ in range(2))
    assert torch.equal(distilled[-1].weights, again[0][-1].weights)
    assert not torch.equal(distilled[-1].weights, play(tiny_dataset, 2, sparsity=0)[-1].weights)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (
            {"size": 32},
            "other.npz: has images of 1x32x32 (channels, height, width), and the clients have images of 1x28x",
        ),
        ({"samples": 39}, "other.npz has only 39 training samples"),
    ],
)
def test_images_from_which_the_server_cannot_distil_are_one_line_before_the_run(
    tiny_dataset: str, tmp_path: Path, other: dict, line: str
) -> None:
    data = {"dataset": tiny_dataset, "distill-data": other_data(tmp_path, **other), "clients": 10}
    with pytest.raises(ConfigError, match=re.escape(line)) as error:
        check(Experiment(Config.from_mapping(ENSEMBLE | data)))
    assert "\n" not in str(error.value)


def test_text_is_distilled_from_only_if_its_tokens_are_those_of_the_clients(tmp_path: Path) -> None:
    text = tmp_path / "other.txt"
    text.write_text("another alphabet: äöü\n" * 400)
    data = {"dataset": "shakespeare-mini", "distill-data": str(text), "clients": 10}
    check(Experiment(Config.from_mapping(ENSEMBLE | data | {"tokenizer": "byte"})))
    with pytest.raises(ConfigError, match=r"other\.txt: the tokenizer makes other tokens of it; use --tokenizer byte"):
        check(Experiment(Config.from_mapping(ENSEMBLE | data)))


def test_scores_of_text_that_the_server_cannot_hold_are_one_line_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = {"dataset": "shakespeare-mini", "tokenizer": "byte", "seq-length": 64, "clients": 10}
    experiment = Experiment(Config.from_mapping(ENSEMBLE | data))
    needed = 2 * 40 * 64 * 256 * 4
    monkeypatch.setattr("fedsparse.preflight.memory_of", lambda device: needed)
    check(experiment)
    monkeypatch.setattr("fedsparse.preflight.memory_of", lambda device: needed - 1)
    with pytest.raises(ConfigError, match=r"^distill-samples = 40: 16,384 scores of each take 5.24 MB, and the server"):
        check(experiment)


def test_clients_without_samples_are_one_line(tiny_dataset: str, tmp_path: Path) -> None:
    experiment = Experiment(Config.from_mapping({"dataset": tiny_dataset, "distill": "ensemble"}))
    with pytest.raises(ConfigError, match="distill-samples = 1000: leaves clients none of 200 training samples"):
        _ = experiment.partition
