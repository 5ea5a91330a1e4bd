"""A user's own topology in a file."""

import pytest
import torch
from torch import nn

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.config import Config
from fedsparse.errors import PluginError
from fedsparse.plugins import call, named
from fedsparse.sparsity import Topology, TopologyMethod
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.sparsity.method import RoundResult, checked
from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.loop import train
from fedsparse.training.stacked import why_alone
from fedsparse.vector import FlatModel
from tests.fedsparse.sparsity.architectures import generator, layers_of, small_cnn

MINE = '''
import torch
from fedsparse.sparsity import Topology, TopologyMethod

class Columns(TopologyMethod):
    """The first weights of every layer exist, and in a readjustment round the last ones."""

    def initial(self, layers, parameters, generator, saliency=None):
        mask = torch.ones(parameters, dtype=torch.bool)
        for layer, count in zip(layers, self.counts(layers, self.sparsity)):
            mask[layer.slice] = torch.arange(layer.size) < count
        return Topology(layers, mask)

    def decide(self, topology, result):
        mask = topology.mask.clone()
        for layer in topology.layers:
            mask[layer.slice] = mask[layer.slice].flip(0)
        return topology.changed(mask)

    def after_step(self, weights):
        for weight in weights:
            weight.clamp_(-0.01, 0.01)
'''


@pytest.fixture
def method(tmp_path) -> TopologyMethod:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return call(named(TOPOLOGIES, f"{file}:Columns"), **Config(sparsity=0.5, rounds=8).readjustment())


def test_a_class_in_a_file_is_constructed_with_the_settings_and_may_override_methods(method):
    layers, parameters = layers_of(small_cnn())
    topology = checked(method.initial(layers, parameters, generator()), layers, parameters)
    result = RoundResult(1, torch.zeros(parameters), generator())
    new = checked(method.decide(topology, result), layers, parameters)
    assert new.version == 1
    assert new.counts == topology.counts == method.counts(layers, 0.5)
    assert not method.is_readjustment(1)
    assert not method.reports
    assert method.state_dict() == {}


def test_step_hooks_get_the_prunable_weights_and_make_clients_train_one_by_one(method):
    flat = FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Linear(20, 40), nn.Linear(40, 10)))
    layers, parameters = layers_of(flat.module, ["1"])
    local = LocalTopology(flat, method.initial(layers, parameters, generator()), method, 1, seed=0)
    x, y = torch.randn(20, 1, 6, 6, generator=generator(1)), torch.randint(0, 10, (20,), generator=generator(2))
    config = Config.from_mapping({"lr": 1.0, "batch_size": 10, "cohort_batching": "on"})
    train(flat, lambda p: (x[p], y[p]), 20, config, Task(), round=1, seed=0, timer=StageTimer(), topology=local)
    dense, *prunable = (float(flat.vector[layer.slice].abs().max()) for layer in layers)
    assert max(prunable) <= 0.0101 < dense
    assert why_alone(config, flat, method) == "method"
    assert why_alone(config, flat, TopologyMethod(0.5)) == ""


def test_a_method_reports_if_it_overrides_report():
    class Reporting(TopologyMethod):
        def report(self, topology, weights, gradient, round):
            return None

    assert Reporting(0.5).reports
    assert not TopologyMethod(0.5).reports


@pytest.mark.parametrize("kind", ["a mask", "nothing", "other layers", "a short mask"])
def test_a_method_that_returns_no_topology_of_the_model_is_refused_in_one_line(kind):
    layers, parameters = layers_of(small_cnn())
    wrong = {
        "a mask": torch.ones(parameters, dtype=torch.bool),
        "nothing": None,
        "other layers": Topology.full(layers[1:], parameters),
        "a short mask": Topology.full(layers, parameters - 1),
    }
    with pytest.raises(PluginError, match="topology: the method ") as error:
        checked(wrong[kind], layers, parameters)
    assert "\n" not in str(error.value)


def test_a_client_refuses_a_local_readjustment_that_returns_no_topology():
    class Careless(TopologyMethod):
        clients_choose = True

        def readjust_locally(self, topology, weights, gradient, round):
            return topology.mask

    flat = FlatModel(nn.Linear(6, 3))
    layers, parameters = layers_of(flat.module, [])
    local = LocalTopology(flat, Topology.full(layers, parameters), Careless(0.5, interval=1, end=3), 1, seed=0)
    with pytest.raises(PluginError, match="should return a Topology, not Tensor"):
        train(
            flat,
            lambda p: (torch.ones(len(p), 6), torch.zeros(len(p), dtype=torch.int64)),
            4,
            Config(),
            Task(),
            round=1,
            seed=0,
            timer=StageTimer(),
            topology=local,
        )
