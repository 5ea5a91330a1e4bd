"""A data set that is neither images nor text: one row of numbers a sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import fedsparse
from fedsparse.errors import ConfigError
from fedsparse.partitions import Dataset


class Table(Dataset):
    """Rows of six numbers, whose class is the sign of the first."""

    classes, owners, task, input_shape, samples_in_words = 2, None, "classify", (6,), "rows of 6 numbers"
    train_size, test_size = 200, 40

    def __init__(self) -> None:
        self.x = torch.randn(240, 6, generator=torch.Generator().manual_seed(0))
        self.y = (self.x[:, 0] > 0).long()

    @property
    def labels(self) -> np.ndarray:
        return self.y[:200].numpy()

    def to(self, device: Any) -> "Table":
        return self

    def fetch(self, indices: Tensor, generator: torch.Generator | None = None) -> Any:
        return lambda positions: (self.x[indices[positions]], self.y[indices[positions]])

    def test_batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.x[200 + positions], self.y[200 + positions]

    def trial(self) -> tuple[Tensor, Tensor]:
        return self.x[:2], torch.tensor([0, 1])

    def table(self, partition: Any, width: int) -> str:
        return ""

    def draw(self, partition: Any, figure: Any) -> None: ...

    def plot(self, partition: Any) -> Figure:
        return Figure()


def load(data_dir: Path) -> Dataset:
    return Table()


def linear(input_shape: tuple[int], classes: int) -> nn.Module:
    return nn.Linear(input_shape[0], classes)


@pytest.mark.parametrize("model", ["tests.e2e.test_tabular:linear", "mlp-small"])
def test_a_table_of_the_users_own_trains_an_own_model_and_a_named_one(model: str, tmp_path: Path) -> None:
    settings = {"model": model, "clients": 4, "clients_per_round": 4, "rounds": 5, "epochs": 5, "workers": 1}
    result = fedsparse.run({"dataset": f"{__name__}:load", "logdir": str(tmp_path), "compressor": "none"} | settings)
    assert result.rounds[-1]["eval/accuracy"] > 0.85


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("auto", "model = auto: means cnn-small for images and gpt2-nano for text, and the data is neither; name a"),
        ("cnn", "model = cnn: does not fit rows of 6 numbers"),
        ("gpt2-nano", "model = gpt2-nano: does not fit rows of 6 numbers"),
    ],
)
def test_a_model_that_does_not_fit_a_table_is_one_line(model: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        fedsparse.run(dataset=f"{__name__}:load", model=model, logdir=str(tmp_path))
