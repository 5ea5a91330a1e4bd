"""Adapters beside frozen weights: against their definition and peft, and in federations."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
from torch import Tensor, nn
from torch.func import functional_call

from fedsparse.clients.receive_frozen import receive_frozen
from fedsparse.clients.workbench import Workbench
from fedsparse.commands.checks import checked
from fedsparse.commands.run import start
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.engine.records import payload_array
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.lowrank import dense_state
from fedsparse.lowrank.lora import LoRA, adapt_
from fedsparse.models import build_model
from fedsparse.preflight import check
from fedsparse.python_door import Result
from fedsparse.vector import digest
from tests.strategies.federation import TRAFFIC, play

ADAPTERS = {"sparsity": 0.0, "distribution": "iid", "eval-clients": False, "lora-rank": 2, "compressor": "topk"}
torch.manual_seed(0)
LAYERS: dict[str, tuple[Any, Tensor]] = {
    "linear": (nn.Linear(30, 20), torch.randn(5, 30)),
    "convolution": (nn.Conv2d(6, 8, 3, stride=2, padding=1), torch.randn(2, 6, 9, 9)),
}


def trained(old: nn.Module) -> LoRA:
    """An adapter beside a copy of the layer, as it may be after training."""
    layer = LoRA(copy.deepcopy(old), 3, alpha=6.0)
    nn.init.normal_(layer.up.weight)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_an_adapter_begins_as_the_frozen_layer_and_computes_what_the_merged_weights_do(name: str) -> None:
    old, x = LAYERS[name]
    assert torch.equal(LoRA(copy.deepcopy(old), 3, alpha=6.0)(x), old(x))
    layer = trained(old)
    torch.testing.assert_close(layer(x), functional_call(old, {"weight": layer.weight}, (x,)), rtol=1e-4, atol=1e-5)
    assert (layer.weight - old.weight).abs().max() > 0.1


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_those_of_peft(name: str) -> None:
    peft = pytest.importorskip("peft")
    old, x = LAYERS[name]
    layer = trained(old)
    settings = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0"])
    other = peft.get_peft_model(nn.Sequential(copy.deepcopy(old)), settings)
    theirs = other.base_model.model[0]
    theirs.lora_A["default"].weight.data.copy_(layer.down.weight)
    theirs.lora_B["default"].weight.data.copy_(layer.up.weight)
    torch.testing.assert_close(layer(x), other(x), rtol=0, atol=1e-6)
    layer(x).square().mean().backward()
    other(x).square().mean().backward()
    for mine, their in ((layer.down, theirs.lora_A), (layer.up, theirs.lora_B)):
        torch.testing.assert_close(mine.weight.grad, their["default"].weight.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.weight, other.merge_and_unload()[0].weight, rtol=0, atol=1e-6)


def test_an_adapter_of_a_matrix_of_less_rank_can_still_learn_with_all_its_rank() -> None:
    layer = LoRA(nn.Linear(6, 5), rank=3, alpha=3.0)
    one = torch.outer(torch.arange(5.0), torch.arange(6.0))
    layer.set_matrix_(one)
    torch.testing.assert_close(layer.matrix, one)
    layer(torch.randn(8, 6, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    assert layer.up.weight.grad is not None
    assert bool(layer.up.weight.grad.abs().sum(0).gt(0).all())
    layer.set_matrix_(torch.zeros(5, 6))
    assert bool(layer.down.weight.abs().sum(1).gt(0).all())


def test_a_merged_network_computes_what_the_network_with_adapters_does() -> None:
    plain, adapted = (build_model("gpt2-nano", (16,), 50, "batch", seed=0) for _ in range(2))
    adapt_(adapted, ["h.*.attn.*"], 4, 8.0, seed=1)
    assert all(("down" in name or "up" in name) == p.requires_grad for name, p in adapted.named_parameters())
    for part in adapted.modules():
        if isinstance(part, LoRA):
            nn.init.normal_(part.up.weight, std=0.1)
    tokens = torch.randint(50, (2, 16))
    assert (adapted(tokens) - plain(tokens)).abs().max() > 1e-3
    plain.load_state_dict(dense_state(adapted))
    torch.testing.assert_close(plain(tokens), adapted(tokens), rtol=1e-4, atol=1e-5)


def test_the_network_begins_with_the_weights_of_the_file_that_init_names(tmp_path: Path) -> None:
    dense = Experiment(Config(seed=7)).model.module
    torch.save(dense.state_dict(), tmp_path / "model.pt")
    experiment = Experiment(Config.from_mapping({"lora-rank": 2, "init": str(tmp_path / "model.pt")}))
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(experiment.model.module(x), dense(x))
    assert experiment.layout.parameters < 0.1 * experiment.frozen.layout.size
    assert experiment.dense_layout.parameters == experiment.frozen.layout.size


def test_frozen_weights_travel_to_each_client_once_and_again_to_a_client_that_failed(tiny_dataset: str) -> None:
    played = play(tiny_dataset, 3, **ADAPTERS, **{"clients-per-round": 6}, lost={(1, 2)})
    sent = [
        {message.metadata.dst_node_id for message, _ in TRAFFIC if "frozen" in message.content and at(message) == round}
        for round in (1, 2, 3)
    ]
    assert sent == [{0, 1, 3, 4, 5}, {2}, set()]
    assert all("arrays" in reply.content and len(reply.content["arrays"]) == 1 for _, reply in TRAFFIC)
    down = [state.metrics["comm/downlink_bytes"] for state in played[1:]]
    whole = 4 * Experiment(Config.from_mapping({"dataset": tiny_dataset})).layout.size
    assert down[0] - down[2] == pytest.approx(6 * whole, rel=0.01)
    assert down[1] - down[2] == pytest.approx(whole, rel=0.01)
    assert not torch.equal(played[0].weights, played[3].weights)


def at(message: Any) -> int:
    return int(message.content["task"]["round"])


def test_of_adapters_with_a_frozen_a_only_b_travels() -> None:
    settings = {"lora-rank": 2, "lora-layers": "3,7", "lora-freeze-a": True}
    names = [entry.name for entry in Experiment(Config.from_mapping(settings)).layout.entries]
    assert names == ["3.up.weight", "7.up.weight"]


@pytest.mark.parametrize("store", ["context", "files"])
def test_a_run_with_adapters_goes_on_with_the_same_bits(tiny_dataset: str, tmp_path: Path, store: str) -> None:
    def play(logdir: str, until: int | None = None, **more: Any) -> Path:
        places = {"dataset": tiny_dataset, "logdir": str(tmp_path / logdir), "workers": 1, "checkpoint-every": 1}
        given = {"clients": 6, "clients-per-round": 3, "rounds": 4, "state-store": store}
        return start(checked(Given(ADAPTERS | places | given | more)), until)

    whole, cut = play("whole"), play("cut", until=2)
    play("cut", resume=str(cut))
    measured = [
        [(row["weights/hash"], row.get("comm/downlink_bytes")) for row in Result(folder).rounds]
        for folder in (whole, cut)
    ]
    assert measured[0] == measured[1]
    assert isinstance(Result(cut).model()[3], LoRA)


def test_a_run_does_not_go_on_beside_other_frozen_weights(tiny_dataset: str, tmp_path: Path) -> None:
    file, networks = tmp_path / "model.pt", [Experiment(Config(seed=seed)).model.module for seed in (1, 2)]
    settings = ADAPTERS | {"dataset": tiny_dataset, "logdir": str(tmp_path / "runs"), "init": str(file), "workers": 1}
    settings |= {"clients": 6, "clients-per-round": 3, "rounds": 2, "checkpoint-every": 1, "state-store": "context"}
    torch.save(networks[0].state_dict(), file)
    run = start(checked(Given(settings)), until=1)
    torch.save(networks[1].state_dict(), file)
    with pytest.raises(ConfigError, match="has other weights than when the run began"):
        start(checked(Given(settings | {"resume": str(run)})))


def test_a_client_refuses_frozen_weights_that_are_not_those_of_the_message() -> None:
    bench = Workbench(Config.from_mapping({"lora-rank": 2}))
    weights = bench.frozen.vector
    payload, _ = UpdateCodec(bench.frozen.layout, "none").encode(weights, ClientState(), round=0, seed=0)
    sent = ArrayRecord({"weights": payload_array(payload, bench.frozen.layout)})
    task = {"frozen": digest(weights.numpy()).hex(), "state-folder": ""}
    receive_frozen(bench, Context(0, 0, {}, RecordDict(), {}), sent, ConfigRecord(task), 0)
    other = ConfigRecord(task | {"frozen": "0" * 16})
    with pytest.raises(ValueError, match="not the frozen weights that the message names"):
        receive_frozen(bench, Context(0, 0, {}, RecordDict(), {}), sent, other, 0)


def test_flasc_makes_adapters_sparse_both_ways(tiny_dataset: str) -> None:
    sparse = {"density": 0.25, "downlink-compressor": "topk", "downlink-density": 0.25, "clients-per-round": 6}
    dense = play(tiny_dataset, 3, **ADAPTERS | {"compressor": "none", "clients-per-round": 6})[-1].metrics
    flasc = play(tiny_dataset, 3, **ADAPTERS | sparse)[-1].metrics
    assert flasc["comm/uplink_bytes"] < 0.3 * dense["comm/uplink_bytes"]
    assert flasc["comm/downlink_bytes"] < 0.3 * dense["comm/downlink_bytes"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora-layers": "conv*"}, "no layer fits conv"),
        ({"lowrank-layers": "full"}, "lowrank-layers = full trains all weights"),
        ({"sparsity": 0.5, "topology": "ssfl"}, "topology = ssfl"),
        ({"weight-bits": 4}, "weight-bits = 4"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(Experiment(Config.from_mapping({"lora-rank": 2} | settings)))
