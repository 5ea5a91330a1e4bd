"""Over a network that loses, delays, damages and repeats messages, every update counts once."""

from pathlib import Path

import pytest

from benchmarks.faults import RATES, measured, played
from fedsparse.config import Config

FAULTS = dict.fromkeys(("unreached", "lost", "late", "corrupt", "twice"), 0.1)


def settings(dataset: str, folder: Path, **more: object) -> Config:
    small = {"clients": 6, "clients-per-round": 4, "rounds": 12, "eval-every": 12, "model": "mlp-small"}
    place = {"dataset": dataset, "logdir": str(folder), "state-store": "context"}
    return Config.from_mapping({**small, **place, "residual-decay": 1, **more})


@pytest.mark.parametrize(
    "more",
    [
        {"compressor": "topk", "density": 0.05, "values": "f32"},
        {"compressor": "hggtopk", "density": 0.01, "values": "sign", "distribution": "shards"},
        {"compressor": "powersgd"},
        {"compressor": "randomk", "density": 0.2, "values": "int4", "downlink-compressor": "topk"},
    ],
    ids=lambda more: more["compressor"],
)
def test_what_the_server_accepted_and_clients_hold_is_all_that_clients_made(
    tiny_dataset: str, tmp_path: Path, more: dict[str, object]
) -> None:
    config = settings(tiny_dataset, tmp_path, **more)
    _, grid, books = played(config, FAULTS)
    assert all(grid.faults[fault] for fault in FAULTS)
    assert len(books.accepted) == 6
    assert max(books.missing(grid, config)) < 1e-6


def test_books_show_what_a_decaying_residual_takes_away(tiny_dataset: str, tmp_path: Path) -> None:
    config = settings(tiny_dataset, tmp_path, **{"compressor": "topk", "density": 0.05, "residual-decay": 0.5})
    _, grid, books = played(config, FAULTS)
    assert max(books.missing(grid, config)) > 0.01


@pytest.mark.slow
def test_two_hundred_rounds_over_a_faulty_network_miss_no_mass_and_little_accuracy() -> None:
    assert measured("--residual-decay 1", 0, RATES)[1] < 1e-6
    losses = [measured("", seed, {})[0] - measured("", seed, RATES)[0] for seed in range(3)]
    assert sum(losses) / 3 < 2
