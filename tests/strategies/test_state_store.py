"""The place in which ``state-store auto`` keeps clients' residuals."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.strategies.state_place import keeps_files

CONFIG = Config(clients=20, clients_per_round=5, rounds=2)  # ten clients, of which five keep two states
LARGE = 2**20
"""A number of weights whose residual is too large for a Context that travels."""


def experiment(weights: int, cuda: bool, config: Config = CONFIG) -> Any:
    vector = SimpleNamespace(is_cuda=cuda, device="cuda")
    layout = SimpleNamespace(parameters=weights)
    return SimpleNamespace(config=config, layout=layout, model=SimpleNamespace(vector=vector))


@pytest.mark.parametrize("cuda", [True, False])
def test_large_residuals_stay_on_a_gpu_whose_process_trains_and_go_to_files_elsewhere(
    cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (240 * LARGE, 0))
    with (
        LocalGrid("fedsparse.clients.client_app:app", 20) as here,
        LocalGrid("fedsparse.clients.client_app:app", 20, client_timeout=9) as workers,
    ):
        assert keeps_files(experiment(LARGE, cuda), here) is not cuda
        assert keeps_files(experiment(LARGE, cuda), workers)
        assert keeps_files(experiment(LARGE, cuda, CONFIG.replace(state_store="files")), here)


@pytest.mark.parametrize("kept", [{"downlink_compressor": "topk"}, {"residual_dtype": "bf16"}])
def test_state_on_the_host_of_clients_on_a_gpu_is_bounded_too(
    kept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 0))
    with LocalGrid("fedsparse.clients.client_app:app", 20) as here:
        assert not keeps_files(experiment(200 * LARGE, True), here)
        assert keeps_files(experiment(200 * LARGE, True, CONFIG.replace(**kept)), here)
        assert not keeps_files(experiment(LARGE, True, CONFIG.replace(**kept)), here)


def test_a_gpu_without_room_for_all_residuals_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (240 * LARGE - 1, 0))
    with LocalGrid("fedsparse.clients.client_app:app", 20) as here:
        assert keeps_files(experiment(LARGE, True), here)
        assert not keeps_files(experiment(LARGE, True, CONFIG.replace(state_store="context")), here)
