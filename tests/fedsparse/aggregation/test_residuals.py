"""FedEx-LoRA: what the mean of adapters misses of the mean product goes into the frozen weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from torch import Tensor, nn

from fedsparse.aggregation.products import ProductMean
from fedsparse.aggregation.residuals import ResidualMean
from fedsparse.commands.checks import checked
from fedsparse.commands.run import start
from fedsparse.compression import ClientState, UpdateCodec, decode
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, Diverged
from fedsparse.experiment import Experiment
from fedsparse.lowrank import dense_state
from fedsparse.lowrank.lora import LoRA
from fedsparse.python_door import Result
from fedsparse.vector import FlatModel
from tests.strategies.federation import TRAFFIC, binding_of, federation, play, play_round

EXACT = {
    **{"sparsity": 0.0, "distribution": "dirichlet", "eval-clients": False, "lr": 0.03, "local-steps": 6},
    **{
        "lora-rank": 2,
        "lowrank-average": "residual",
        "compressor": "none",
        "clients": 6,
        "clients-per-round": 3,
        "seed": 3,
    },
}


class Follower:
    """What the messages to clients and their replies mean, by the definitions alone."""

    def __init__(self, dataset: str) -> None:
        self.experiment = Experiment(Config.from_mapping({"dataset": dataset} | EXACT))
        self.frozen = dict[int, Tensor]()  # by client

    def received(self, message: Message) -> Tensor:
        """The adapters from which a client trains, float32 ``(layout.size,)``; its frozen weights follow."""
        content: Any = message.content
        client = message.metadata.dst_node_id
        for name, array in content.get("frozen", {}).items():
            if name != "hash":
                sent = torch.from_numpy(decode(array.data, self.experiment.frozen.layout).to_dense())
                self.frozen[client] = sent if name == "weights" else self.frozen[client] + sent
        return torch.from_numpy(decode(content["arrays"]["weights"].data, self.experiment.layout).to_dense())

    def network(self, client: int, adapters: Tensor) -> Tensor:
        """The weights of the plain network that computes what the client's network does: float64, flat."""
        self.experiment.frozen.load(self.frozen[client])
        self.experiment.model.vector.copy_(adapters)
        return torch.cat([weight.double().flatten() for weight in dense_state(self.experiment.model.module).values()])


@pytest.mark.parametrize("compressor", ["none", "topk"])
def test_each_round_begins_with_the_mean_of_the_networks_that_the_clients_of_the_last_round_sent(
    tiny_dataset: str, compressor: str
) -> None:
    rounds = 4
    play(tiny_dataset, rounds, **EXACT | {"compressor": compressor, "density": 0.3})
    follower, mean, naive = Follower(tiny_dataset), torch.empty(0), torch.empty(0)
    for round in range(1, rounds + 1):
        sent, adapters, samples = [], [], []
        for message, reply in (pair for pair in TRAFFIC if pair[0].content["task"]["round"] == round):
            client, start = message.metadata.dst_node_id, follower.received(message)
            begins = follower.network(client, start)
            if round > 1:
                torch.testing.assert_close(begins, mean, rtol=0, atol=2e-6)
            update = decode(reply.content["arrays"]["update"].data, follower.experiment.layout, binding_of(message))
            adapters.append(start + torch.from_numpy(update.to_dense()))
            sent.append(follower.network(client, adapters[-1]))
            samples.append(float(reply.content["metrics"]["num-examples"]))
        weights = torch.tensor(samples, dtype=torch.float64) / sum(samples)
        mean = weights @ torch.stack(sent)
        naive = follower.network(client, (weights @ torch.stack(adapters).double()).float())
        assert (naive - mean).abs().max() > 1e-4


def test_a_client_gets_what_was_added_since_it_was_asked_and_all_weights_where_it_may_hold_none(
    tiny_dataset: str,
) -> None:
    play(tiny_dataset, 4, **EXACT, lost={(2, 2)})
    sent = {
        (message.content["task"]["round"], message.metadata.dst_node_id): list(message.content.get("frozen", {}))
        for message, _ in TRAFFIC
    }
    whole = ["weights"]
    assert sent == {
        **{(1, 2): whole, (1, 3): whole, (1, 5): whole, (2, 0): whole, (2, 4): whole},
        **{(3, 0): ["change-3", "hash"], (3, 3): ["change-2", "change-3", "hash"], (3, 4): ["change-3", "hash"]},
        **{(4, 1): whole, (4, 3): ["change-4", "hash"], (4, 5): ["change-2", "change-3", "change-4", "hash"]},
    }


def test_what_a_run_hashes_has_the_frozen_weights_once_they_change(tiny_dataset: str) -> None:
    with federation(tiny_dataset, **EXACT) as (strategy, grid):
        assert [len(vector) for vector in strategy.vectors] == [strategy.model.layout.size]
        play_round(strategy, grid, 1)
        _, frozen = strategy.vectors
        torch.testing.assert_close(torch.from_numpy(frozen), strategy.model.experiment.frozen.vector, rtol=0, atol=0)


@pytest.mark.parametrize(("store", "workers"), [("context", 2), ("files", 1)])
def test_a_run_that_adds_to_frozen_weights_goes_on_with_the_same_bits(
    tiny_dataset: str, tmp_path: Path, store: str, workers: int
) -> None:
    def play(logdir: str, until: int | None = None, **more: Any) -> Path:
        places = {"dataset": tiny_dataset, "logdir": str(tmp_path / logdir), "checkpoint-every": 1, "rounds": 4}
        return start(checked(Given(EXACT | places | {"state-store": store, "workers": 1} | more)), until)

    whole, cut = play("whole", workers=workers), play("cut", until=3)
    play("cut", resume=str(cut))
    measured = [
        [(row["weights/hash"], row.get("comm/downlink_bytes")) for row in Result(f).rounds] for f in (whole, cut)
    ]
    assert measured[0] == measured[1]
    networks = [dict(Result(folder).model().state_dict()) for folder in (whole, cut)]
    torch.testing.assert_close(networks[0], networks[1], rtol=0, atol=0)


@pytest.mark.parametrize("rule", ["residual", "products"])
def test_each_layer_becomes_the_mean_over_the_clients_that_train_it(rule: str) -> None:
    torch.manual_seed(0)
    layers = [LoRA(nn.Linear(6, 5).requires_grad_(False), 5, alpha=6.0) for _ in range(3)]
    model = FlatModel(nn.Sequential(*layers))
    start, clients, size = 0.5 * torch.randn(model.layout.size), [(3, 1), (5, 2), (2, 2)], model.layout.size
    codec, sums, held = UpdateCodec(model.layout, "none"), [torch.zeros(5, 6) for _ in layers], [0, 0, 0]
    every = torch.ones(size, dtype=torch.bool)
    aggregator = ResidualMean(model, every) if rule == "residual" else ProductMean(model, start, every)
    for samples, depth in clients:
        mask = torch.arange(size) < size // 3 * depth
        update = torch.randn(size) * mask
        model.vector.copy_(start + update)
        for at in range(depth):
            sums[at], held[at] = sums[at] + samples * layers[at].matrix.detach(), held[at] + samples
        payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
        aggregator.add(codec.decode(payload), samples, mask)
    model.vector.copy_(start + aggregator.result())
    added = aggregator.residuals() if isinstance(aggregator, ResidualMean) else {}
    for at in (0, 1):
        p, q = added.get(f"{at}.base.weight", (torch.zeros(5, 1), torch.zeros(6, 1)))
        torch.testing.assert_close(layers[at].matrix.detach() + (p @ q.T).float(), sums[at] / held[at])
    assert torch.equal(model.vector[size // 3 * 2 :], start[size // 3 * 2 :])
    assert "2.base.weight" not in added


def test_products_that_overflow_end_the_run_as_diverged(tiny_dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def huge(mean: ResidualMean) -> dict[str, tuple[Tensor, Tensor]]:
        return {"3.base.weight": (torch.full((32, 1), 1e25), torch.full((144, 1), 1e25))}

    monkeypatch.setattr(ResidualMean, "residuals", huge)
    with pytest.raises(Diverged, match="round 1: the mean update is not finite"):
        play(tiny_dataset, 1, **EXACT)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora-rank": 0, "lowrank-layers": "full"}, "frozen weights beside adapters; set lora-rank"),
        ({"lora-freeze-a": True}, "lora-freeze-a = true"),
        ({"aggregator": "median"}, "aggregator = median"),
        ({"strategy": "fedavgm"}, "strategy = fedavgm"),
        ({"downlink-compressor": "topk"}, "downlink-compressor = topk"),
        ({"topology": "static", "sparsity": 0.5}, "topology = static"),
        ({"secure-aggregation": True}, "secure-aggregation = true"),
    ],
)
def test_what_the_residual_does_not_follow_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"lowrank-average = residual: .*{words}"):
        Config.from_mapping(EXACT | settings)
