"""The configs that are the settings of a paper have the paper's values."""

from pathlib import Path

import pytest

from fedsparse.config import Config
from fedsparse.config.yaml_file import read_yaml

CONFIGS = Path(__file__).parents[3] / "configs"

FEDRTS = {
    **{"distribution": "dirichlet-self-balancing", "beta": 0.5, "min-samples": 10, "clients": 100},
    **{"clients-per-round": 10, "rounds": 500, "epochs": 5, "batch-size": 64, "lr": 0.01, "sparsity": 0.8},
    **{"topology": "feddst", "dense-layers": "last", "readjustment-ratio": 0.4, "readjustment-end": 300},
}
SSFL = {
    **{"distribution": "dirichlet-per-client", "beta": 0.3, "clients": 100, "clients-per-round": 10, "rounds": 999},
    **{"epochs": 5, "batch-size": 16, "lr": 0.1, "lr-schedule": "exponential", "lr-decay": 0.998},
    **{"dense-layers": "", "saliency-samples": 16},
}
DILOCO = {
    **{"clients": 8, "clients-per-round": 8, "local-steps": 500, "optimizer": "adamw", "lr": 4e-4, "weight-decay": 0.1},
    **{"keep-moments": True, "strategy": "fedavgm", "server-nesterov": True, "server-momentum": 0.9, "server-lr": 0.7},
    **{"compressor": "none", "warmup-rounds": 0, "lr-warmup-rounds": 2},
}
SPARSELOCO = {
    **{"clients": 8, "clients-per-round": 8, "local-steps": 30, "optimizer": "adamw", "strategy": "fedavg"},
    **{"compressor": "sparseloco", "density": 64 / 4096, "feedback-decay": 0.95, "residual-decay": 1.0},
    **{"keep-moments": True, "warmup-rounds": 0, "lr-warmup-rounds": 5},
}
PUBLISHED = {"feddst-cifar10": FEDRTS, "ssfl-cifar10": SSFL, "diloco": DILOCO, "sparseloco": SPARSELOCO}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_a_papers_config_has_the_papers_settings(name: str, published: dict[str, object]) -> None:
    flat = Config.from_mapping(read_yaml(CONFIGS / f"{name}.yaml")).flat()
    assert {key: flat[key] for key in published} == published


def test_diloco_sends_whole_updates_and_sparseloco_the_largest_of_each_chunk() -> None:
    diloco, sparseloco = (
        Config.from_mapping(read_yaml(CONFIGS / f"{name}.yaml")).compression() for name in ("diloco", "sparseloco")
    )
    assert (diloco["compressor"], diloco["values"], diloco["error_feedback"]) == ("none", "f32", True)
    assert (sparseloco["compressor"], sparseloco["values"], sparseloco["scope"]) == ("topk", "int2", "chunk")
    assert sparseloco["error_feedback"]
