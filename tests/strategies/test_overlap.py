"""Clients in two threads give the same replies, bit for bit, as clients called one after the other."""

import math

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from torch import nn
from torchvision.models.resnet import BasicBlock

from fedsparse.catalogue import MODELS
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.experiment import Experiment
from fedsparse.strategies.server_app import make_strategy

SETTINGS = {"clients": 8, "clients-per-round": 8, "model": "mlp-small", "batch-size": 8}
TOGETHER = "fedsparse.clients.client_app:train_together"
FEDERATIONS = {
    "one by one": {},
    "together": {"cohort-batching": "on"},
    "no selection": {"compressor": "none", "values": "eden", "residual-dtype": "bf16"},
    "readjusted by the server": {
        "topology": "rigl",
        "sparsity": 0.5,
        "readjustment-interval": 1,
        "dense-layers": "last",
    },
    "readjusted by clients": {
        "topology": "feddst",
        "sparsity": 0.5,
        "readjustment-interval": 1,
        "dense-layers": "last",
    },
    "pruned before upload": {"upload-pruning": "magnitude"},
    "sent changes alone": {"downlink-compressor": "hggtopk"},
}
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")),
]


def with_dropout(input_shape: tuple[int, int, int], classes: int, norm: str) -> nn.Module:
    """A network whose training draws from the random state that all threads of the process share."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), 16), nn.Dropout(0.5), nn.Linear(16, classes))


def with_a_block(input_shape: tuple[int, int, int], classes: int, norm: str) -> nn.Module:
    block = BasicBlock(16, 16, norm_layer=lambda channels: nn.GroupNorm(4, channels))
    convolutions = [nn.Conv2d(input_shape[0], 16, 3, stride=2, padding=1), block, nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, classes))


def content_of(reply: Message) -> dict[str, object]:
    """The content of a reply without its times."""
    assert not reply.has_error(), reply.error
    arrays = {name: array.data for name, array in reply.content["arrays"].items()}
    return arrays | {tag: v for tag, v in reply.content["metrics"].items() if not tag.startswith("time/")}


def compare(dataset: str, device: str, rounds: int, **settings: object) -> None:
    """Play every round twice, each time with its own Contexts, and compare the replies."""
    config = Config.from_mapping(SETTINGS | {"dataset": dataset, "device": device} | settings)
    with LocalGrid("fedsparse.clients.client_app:app", 8, together=TOGETHER) as plain, \
         LocalGrid("fedsparse.clients.client_app:app", 8, together=TOGETHER) as overlapped:  # fmt: skip
        overlapped.overlap(torch.device(device))
        strategy = make_strategy(Experiment(config), plain.get_node_ids(), plain)
        if config.cohort_batching == "on":
            plain.group = overlapped.group = 3
        arrays = strategy.broadcast(1)
        for round in range(1, rounds + 1):
            messages = list(strategy.configure_train(round, arrays, ConfigRecord(), plain))
            expected = plain.send_and_receive(messages)
            replies = overlapped.send_and_receive(messages)
            assert [content_of(reply) for reply in replies] == [content_of(reply) for reply in expected], (
                f"round {round}"
            )
            arrays, _ = strategy.aggregate_train(round, expected)
            assert isinstance(arrays, ArrayRecord)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", FEDERATIONS)
def test_every_kind_of_client_answers_alike(tiny_dataset: str, kind: str, device: str) -> None:
    compare(tiny_dataset, device, 3, **FEDERATIONS[kind])


@pytest.mark.parametrize("device", DEVICES)
def test_a_report_that_recomputes_leaves_the_draws_of_the_other_thread_alone(
    tiny_dataset: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "mlp-small", f"{__name__}:with_a_block")
    compare(tiny_dataset, device, 6, recompute=True, **FEDERATIONS["readjusted by the server"])


@pytest.mark.parametrize("device", DEVICES)
def test_a_thousand_clients_that_draw_while_they_train_answer_alike(
    tiny_dataset: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "mlp-small", f"{__name__}:with_dropout")
    compare(tiny_dataset, device, 125, **{"compressor": "dgc", "values": "ternary"})
