"""Networks with classifiers at intermediate layers."""

import copy
import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.models import build_model
from fedsparse.models.chain import chain_of
from fedsparse.models.exits import Exits, with_exits
from fedsparse.sparsity.depths import depth_of, part_of
from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.early_exit import THRESHOLDS, costs, early_exits
from fedsparse.training.loop import train
from fedsparse.vector import FlatModel

random = torch.Generator().manual_seed(2)
SHAPE, CLASSES = (1, 12, 12), 5
X, Y = torch.randn(24, *SHAPE, generator=random), torch.arange(24) % CLASSES


def network(exits: int = 2) -> Exits:
    return with_exits(build_model("cnn-small", SHAPE, CLASSES, "batch", seed=1), exits, SHAPE, CLASSES, seed=2)


@pytest.mark.parametrize("name", ["mlp", "cnn", "lenet5", "resnet18", "vgg11", "mobilenet_v2"])
def test_the_last_classifier_gives_what_the_network_gave_before(name: str) -> None:
    shape = (3, 32, 32)
    whole = build_model(name, shape, CLASSES, "batch", seed=1, width=0.25).eval()
    images = torch.randn(2, *shape, generator=random)
    with torch.no_grad():
        before = whole(images)
        assert torch.equal(nn.Sequential(*chain_of(whole))(images), before)
        branched = with_exits(whole, 1, shape, CLASSES, seed=2)
        assert torch.equal(branched.eval()(images), before)
        assert branched.train()(images).shape == (2, 2, CLASSES)


def test_classifiers_stand_behind_the_stages_of_a_resnet() -> None:
    with torch.device("meta"):
        whole = build_model("resnet18", (3, 32, 32), CLASSES, "group", seed=1)
        ends = [stage[-1] for stage in (whole.layer1, whole.layer2, whole.layer3)]
        stages = with_exits(whole, 3, (3, 32, 32), CLASSES, seed=2).stages
    assert [stage.layers[-1] for stage in stages[:3]] == ends


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"exits": 3}, "exits = 3: model = cnn-small has room for 2"),
        ({"exits": 1, "model": "mlp-small"}, "exits = 1: model = mlp-small has room for 0"),
        ({"exits": 4, "dataset": "shakespeare-mini"}, "exits = 4: model = gpt2-nano has room for 3"),
        ({"exits": 1, "dataset": "shakespeare-mini", "model": "lstm"}, "model = lstm is not a chain of layers"),
        ({"exits": 1, "upload-pruning": "magnitude"}, "exits = 1: upload-pruning = magnitude measures layers"),
        ({"depths": "2"}, "depths = 2: clients end at a classifier; give exits"),
        ({"depths": "3", "exits": 1}, "depths = 3: there are exits + 1 = 2 classifiers"),
        ({"depths": "uniform:1:3", "exits": 1}, "depths = uniform:1:3: there are exits + 1 = 2 classifiers"),
        ({"depths": "few", "exits": 1}, "depths = few: should be a number above 0"),
        ({"depths": "1", "exits": 1, "aggregator": "median"}, "aggregator = median needs the same ones"),
        ({"depths": "1", "exits": 1, "sparsity": 0.5}, "topology = static needs the same ones"),
        ({"depths": "1", "exits": 1, "dp-noise": 1}, "dp-noise needs the same ones"),
        ({"depths": "1", "exits": 1, "downlink-compressor": "topk"}, "clients hold different layers, and changes of"),
        ({"depths": "1", "exits": 1, "least-depth": 3}, "least-depth = 3: there are exits + 1 = 2 classifiers"),
        ({"depths": "1", "exits": 1, "distill": "ensemble"}, "a client's last classifier is not its own"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        _ = Experiment(Config.from_mapping(settings)).network(seed=0)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_training_minimises_the_weighted_mean_of_the_classifiers_losses_as_deep_as_told(depth: int) -> None:
    model, reference = FlatModel(network()), network()
    before = copy.deepcopy(reference)
    model.module.depth = depth
    config = Config.from_mapping({"exits": 2, "exit-weight": 0.3, "batch-size": 24, "epochs": 1, "lr": 0.2})
    score = train(model, lambda i: (X[i], Y[i]), 24, config, Task(), round=1, seed=3, timer=StageTimer())
    x, losses = X, []
    for stage in reference.stages[:depth]:
        x = stage.layers(x)
        losses.append(F.cross_entropy(x if stage.classifier is None else stage.classifier(x), Y))
    weights = [0.3] * (depth - 1) + [1.0]
    sum(w * loss / sum(weights) for w, loss in zip(weights, losses, strict=True)).backward()
    with torch.no_grad():
        for p in reference.parameters():
            p -= 0.2 * (0 if p.grad is None else p.grad)
    assert score.loss == pytest.approx(losses[-1].item(), rel=1e-5), "the loss is that of the deepest classifier"
    held = part_of(model.layout, depth).mask
    for entry, trained, expected, old in zip(
        model.layout.entries, model.module.parameters(), reference.parameters(), before.parameters(), strict=True
    ):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(trained, old) is not bool(held[entry.start])


@pytest.mark.parametrize(("depth", "round"), [(1, 5), (3, 5), (3, 20)])
def test_each_classifier_learns_from_the_others_with_a_weight_that_rises_over_rounds(depth: int, round: int) -> None:
    model, reference = FlatModel(network()), network()
    model.module.depth = depth
    settings = {"exits": 2, "exit-distill": 0.6, "exit-distill-rounds": 10, "exit-weight": 0.3, "rounds": 30}
    config = Config.from_mapping(settings | {"batch-size": 24, "epochs": 1, "lr": 0.2, "lr-schedule": "constant"})
    train(model, lambda i: (X[i], Y[i]), 24, config, Task(), round=round, seed=3, timer=StageTimer())
    scores = reference.every(X, depth)
    fixed = [s.detach().softmax(1) for s in scores]
    weight = 0.6 * math.exp(-5 * 0.6**2) if round == 5 else 0.6
    loss = F.cross_entropy(scores[-1], Y) + 0.3 * sum(F.cross_entropy(s, Y) for s in scores[:-1])
    for i, own in enumerate(scores):
        others = [p for j, p in enumerate(fixed) if j != i]
        loss += weight * sum((p * (p.log() - own.log_softmax(1))).sum() / 24 / len(others) for p in others)
    (loss / (1 + 0.3 * (depth - 1))).backward()
    for trained, expected in zip(model.module.parameters(), reference.parameters(), strict=True):
        step = 0 if expected.grad is None else 0.2 * expected.grad
        torch.testing.assert_close(trained, expected - step, rtol=1e-4, atol=1e-6)


def test_the_depths_of_clients_follow_their_distribution() -> None:
    drawn = Counter(depth_of(client, "uniform:1:3", 3, seed=0) for client in range(3000))
    assert set(drawn) == {1, 2, 3}
    assert all(abs(count - 1000) < 100 for count in drawn.values())
    assert {depth_of(client, "2", 3, seed=0) for client in range(9)} == {2}
    assert {depth_of(client, "lognormal:2:3", 3, seed=0) for client in range(99)} == {1, 2, 3}


def test_a_point_is_what_samples_give_that_leave_one_by_one() -> None:
    model = FlatModel(network())
    model.vector.mul_(3)  # so that classifiers are sure
    found, prices = early_exits(model, lambda i: (X[i], Y[i]), 24, Task()), costs(model.module, X[:1]).tolist()
    each = torch.stack(model.module.every(X, 3))
    assert len({point["multiply_adds"] for point in found["early-exits"]}) > 2, "the test needs samples that leave"
    for point in found["early-exits"]:
        hits = cost = loss = 0.0
        for sample in range(24):
            sure = each[:, sample].softmax(1).amax(1).tolist()
            at = next((e for e in range(2) if sure[e] > point["threshold"]), 2)
            hits, cost = hits + int(each[at, sample].argmax() == Y[sample]), cost + prices[at]
            loss += F.cross_entropy(each[at, sample], Y[sample]).item()
        assert (point["accuracy"], point["multiply_adds"]) == (hits / 24, cost / 24)
        assert point["loss"] == pytest.approx(loss / 24, rel=1e-5)
    assert [point["threshold"] for point in found["early-exits"]] == list(THRESHOLDS)
    *alone, together = found["classifiers"]
    assert [c["accuracy"] for c in alone] == [(scores.argmax(1) == Y).double().mean() for scores in each]
    assert together["accuracy"] == (each.sum(0).argmax(1) == Y).double().mean()


def test_the_computation_of_an_exit_is_that_of_its_layers_and_of_the_classifiers_before() -> None:
    module = network().eval()
    first = 12 * 12 * 16 * 9
    heads = [16 * 3 * 3 * CLASSES, 32 * 3 * 3 * CLASSES]
    second, last = 6 * 6 * 32 * 16 * 9, 32 * 3 * 3 * 32 + 32 * CLASSES
    wanted = [first + heads[0], first + heads[0] + second + heads[1], first + second + sum(heads) + last]
    assert costs(module, X[:1]).tolist() == wanted
