"""What the trackers show of the layers is what the layers have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedsparse.compression import ClientState
from fedsparse.engine.client_store import save_state
from fedsparse.engine.state_files import StateFiles
from fedsparse.sparsity import Topology, weight_layers
from fedsparse.strategies.layer_details import layer_histograms, mask_images, residual_of
from fedsparse.telemetry.histograms import BINS, Histogram
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.trackers import Details
from fedsparse.vector import Layout


@pytest.fixture
def topology() -> Topology:
    """Half of the middle of three layers."""
    net = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3)))
    layout = Layout.of(net)
    layers = weight_layers(net, layout)
    return Topology.random(layers, layout.parameters, (64, 32, 64), torch.Generator().manual_seed(0))


def test_a_histogram_counts_as_numpy_does() -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    histogram = Histogram.of(torch.from_numpy(values))
    assert histogram
    counts, limits = np.histogram(values, BINS)
    np.testing.assert_allclose(histogram.limits, limits[1:], atol=1e-5)
    assert np.abs(np.array(histogram.counts) - counts).sum() <= 4  # values at the edge of a bin
    assert sum(histogram.counts) == histogram.number == 5000
    assert histogram.sum == pytest.approx(values.sum(dtype=np.float64))
    assert histogram.squares == pytest.approx(values @ values, rel=1e-5)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf"), 0.0]])
def test_there_is_no_histogram_of_nothing_and_of_no_finite_numbers(values: list[float]) -> None:
    assert Histogram.of(torch.tensor(values)) is None


def test_equal_values_are_in_the_middle_of_a_histogram(tmp_path: Path) -> None:
    histogram = Histogram.of(torch.full((3,), 2.0))
    assert histogram
    assert (histogram.low, histogram.high, sum(histogram.counts)) == (1, 3, 3)
    with Recorder({}, tmp_path, "", 1, 1) as recorder:
        recorder.details(1, Details(histograms={"x": histogram}))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Histograms("x")
    assert (event.histogram_value.num, event.histogram_value.sum) == (3, 6)


def test_a_histogram_has_the_weights_that_exist(topology: Topology) -> None:
    found = layer_histograms("update", torch.arange(topology.mask.numel(), dtype=torch.float32), topology)
    assert [(tag, histogram.number) for tag, histogram in found.items()] == [
        ("update/0.weight", 64),
        ("update/1.weight", 32),
        ("update/2.weight", 64),
    ]


def test_pictures_show_the_masks_of_layers_that_lack_weights(topology: Topology) -> None:
    ((tag, image),) = mask_images(topology).items()
    assert tag == "mask/1.weight"
    assert (image.shape, int((image == 255).sum()), int((image == 0).sum())) == ((8, 8), 32, 32)
    assert mask_images(Topology.full(topology.layers, topology.mask.numel())) == {}


def test_a_residual_of_few_weights_stands_where_the_weights_do(topology: Topology, tmp_path: Path) -> None:
    kept = np.arange(1, int(topology.mask.sum()) + 1, dtype=np.float32)
    state = ClientState(residual=kept, topology=np.packbits(topology.mask.numpy()).tobytes())
    save_state(Context(0, 3, {}, None, {}), StateFiles(tmp_path / "3"), state)  # type: ignore[arg-type]
    residual = residual_of(3, None, str(tmp_path), topology.mask.numel())
    assert residual is not None
    assert residual[topology.mask].tolist() == kept.tolist()
    assert not residual[~topology.mask].any()


def test_where_the_server_sees_no_clients_there_is_no_residual() -> None:
    assert residual_of(0, None, "", 5) is None
