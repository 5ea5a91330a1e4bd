"""Where ``state-store auto`` has clients keep their residuals."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from strategies.server_app import keeps_files

CONFIG = Config(clients=20, clients_per_round=5, rounds=2)  # ten clients are touched at most
LARGE = 2**20
"""Weights; a residual of so many is too large for a Context that travels."""


def model(weights: int, cuda: bool) -> Any:
    vector = SimpleNamespace(is_cuda=cuda, device="cuda")
    return SimpleNamespace(layout=SimpleNamespace(parameters=weights), vector=vector)


@pytest.mark.parametrize("cuda", [True, False])
def test_large_residuals_stay_on_a_gpu_whose_process_trains_and_go_to_files_elsewhere(
    cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (160 * LARGE, 0))
    with (
        LocalGrid("clients.client_app:app", 20) as here,
        LocalGrid("clients.client_app:app", 20, client_timeout=9) as workers,
    ):
        assert keeps_files(CONFIG, model(LARGE, cuda), here) is not cuda
        assert keeps_files(CONFIG, model(LARGE, cuda), workers)
        assert keeps_files(CONFIG.replace(state_store="files"), model(LARGE, cuda), here)


@pytest.mark.parametrize("kept", [{"downlink_compressor": "topk"}, {"residual_dtype": "bf16"}])
def test_what_waits_on_the_host_for_clients_of_a_gpu_is_bounded_too(
    kept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 0))
    with LocalGrid("clients.client_app:app", 20) as here:
        assert not keeps_files(CONFIG, model(200 * LARGE, True), here)
        assert keeps_files(CONFIG.replace(**kept), model(200 * LARGE, True), here)
        assert not keeps_files(CONFIG.replace(**kept), model(LARGE, True), here)


def test_a_gpu_without_room_for_the_residuals_of_all_clients_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (160 * LARGE - 1, 0))
    with LocalGrid("clients.client_app:app", 20) as here:
        assert keeps_files(CONFIG, model(LARGE, True), here)
        assert not keeps_files(CONFIG.replace(state_store="context"), model(LARGE, True), here)
