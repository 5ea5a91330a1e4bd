"""Batches, where the model normalises by them: what BatchNorm cannot train on, and what is done about it."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.commands import main
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.sparsity.static import Dense
from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.loop import train
from fedsparse.training.stacked import why_alone
from fedsparse.vector import FlatModel

X, Y = torch.randn(33, 6, generator=torch.Generator().manual_seed(0)), torch.arange(33) % 3


def network(*, running: bool = True) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=running), nn.ReLU(), nn.Linear(8, 3))


class Frozen(nn.Sequential):
    """BatchNorm that keeps its statistics, as in fine-tuning."""

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self


def batches_of(module: nn.Module, samples: int = 33, **settings: object) -> list[list[int]]:
    """The positions of every batch that the loop asks for."""
    seen = []

    def fetch(positions: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(positions.tolist())
        return X[positions], Y[positions]

    config = Config.from_mapping({"batch_size": 16, "epochs": 2} | settings)
    score = train(FlatModel(module), fetch, samples, config, Task(), round=1, seed=3, timer=StageTimer())
    assert score.samples == 2 * samples
    return seen


def test_a_lone_last_sample_joins_the_batch_before_it_where_batchnorm_trains() -> None:
    seen = batches_of(network())
    assert [len(batch) for batch in seen] == [16, 17, 16, 17]
    for epoch in (seen[:2], seen[2:]):
        assert sorted(chain(*epoch)) == list(range(33))
    plain = batches_of(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)))
    assert [len(batch) for batch in plain] == [16, 16, 1] * 2
    assert list(chain(*plain[:3])) == list(chain(*seen[:2]))  # the same order


def test_batches_stay_as_they_are_where_none_has_one_sample_or_nothing_trains_by_them() -> None:
    assert [len(batch) for batch in batches_of(network(), samples=32)] == [16] * 4
    assert [len(batch) for batch in batches_of(network(), samples=20)] == [16, 4] * 2
    assert [len(batch) for batch in batches_of(Frozen(*network()))] == [16, 16, 1] * 2


def test_joined_batches_train_as_a_plain_loop_does_on_them() -> None:
    module = network().train()
    optimizer, shuffle = torch.optim.SGD(module.parameters(), 0.1), torch.Generator().manual_seed(3)
    for _ in range(2):
        for batch in torch.randperm(33, generator=shuffle).split([16, 17]):
            optimizer.zero_grad()
            F.cross_entropy(module(X[batch]), Y[batch]).backward()
            optimizer.step()
    ours, config = FlatModel(network()), Config.from_mapping({"batch_size": 16, "epochs": 2})
    train(ours, lambda i: (X[i], Y[i]), 33, config, Task(), round=1, seed=3, timer=StageTimer())
    torch.testing.assert_close(ours.vector, FlatModel(module).vector)


def test_pieces_of_a_batch_are_refused_where_batchnorm_trains_for_they_would_be_another_algorithm() -> None:
    with pytest.raises(ConfigError, match=r"accumulate = 2: .*BatchNorm.*--norm group"):
        batches_of(network(), accumulate=2)
    assert len(batches_of(Frozen(*network()), samples=32, accumulate=2)) == 8


def test_a_model_that_normalises_by_batches_trains_one_client_at_a_time_though_it_keeps_no_statistics() -> None:
    model = FlatModel(network(running=False))
    assert why_alone(Config(), model, Dense(0.0)) == "BatchNorm"


@pytest.fixture(scope="module")
def small_images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """330 images of 8x8, of which ResNet-18 leaves one value a channel: ten clients of 33 = 32 + 1."""
    rng, file = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "small.npz"
    images, labels = rng.integers(0, 256, (330, 8, 8), dtype=np.uint8), np.arange(330) % 10
    np.savez(file, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    return str(file)


def run(small_images: str, tmp_path: Path, *flags: str) -> int:
    few = ["--clients", "10", "--clients-per-round", "2", "--rounds", "1", "--workers", "1", "--model", "resnet18"]
    return main([*few, "--dataset", small_images, "--logdir", str(tmp_path), *flags])


def test_no_client_fails_by_a_last_batch_of_one_image_and_the_run_says_what_it_does(
    small_images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small_images, tmp_path) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "BatchNorm" in line]
    assert "10 of 10 clients" in line
    (folder,) = tmp_path.iterdir()
    assert not (folder / "log.txt").exists()


def test_central_training_joins_a_lone_last_image_too(
    small_images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--rounds", "1", "--batch-size", "47", "--model", "resnet18", "--dataset", small_images]
    assert main(["train-central", *flags, "--logdir", str(tmp_path)]) == 0  # 330 = 7 * 47 + 1
    assert "BatchNorm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--batch-size", "1"], "batch-size = 1"),
        (["--accumulate", "2"], "accumulate = 2"),
        (["--clients", "165", "--eval-clients", "--holdout", "0.5"], "client 0 trains on 1 sample"),
        (["train-central", "--batch-size", "1"], "batch-size = 1"),
        (["bench-compressors", "--accumulate", "2"], "accumulate = 2"),
    ],
)
def test_what_batchnorm_cannot_train_on_is_refused_before_the_run_with_the_cure(
    small_images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    assert run(small_images, tmp_path, *flags) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert "--norm group" in shown
    assert shown.count("\n") == 1


def test_what_batchnorm_can_train_on_is_not_refused(small_images: str, tmp_path: Path) -> None:
    assert run(small_images, tmp_path, "--batch-size", "1", "--norm", "group", "--clients", "33") == 0
    large = ["--dataset", "fashion-mnist-mini", "--clients", "1000", "--batch-size", "1"]  # 16 values a channel
    assert run(small_images, tmp_path, *large) == 0


def test_batches_of_one_are_refused_for_a_users_own_model_with_batchnorm_too(
    small_images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bn.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, classes):\n"
        "    pixels = input_shape[0] * input_shape[1] * input_shape[2]\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))\n"
    )
    for command in ([], ["train-central"]):
        flags = [*command, "--model", f"{tmp_path}/bn.py:net", "--batch-size", "1"]
        assert run(small_images, tmp_path, *flags) == 2
        assert "batch-size = 1: BatchNorm needs 2 samples" in capsys.readouterr().err
