"""The same run on Flower's own runtime."""

import json
from pathlib import Path

import pytest

from fedsparse.commands import main
from tests.e2e.kills import outcome

SMALL = ["--distribution", "dirichlet", "--clients", "8", "--clients-per-round", "3", "--rounds", "2", "--workers", "2"]

pytestmark = pytest.mark.slow


def run(tmp_path: Path, engine: str, *flags: str) -> tuple[int, Path]:
    folder = tmp_path / engine
    folder.mkdir()
    files = ["--logdir", str(folder / "runs"), "--outfile", str(folder / "out.json")]
    return main([*SMALL, *files, "--engine", engine, *flags]), folder / "out.json"


TEXT = ["--dataset", "shakespeare-mini", "--distribution", "iid", "--seq-length", "32", "--local-steps", "2"]
ENSEMBLE = ["--distill", "ensemble", "--distill-samples", "50", "--distill-steps", "3"]
JOBS = {
    "images": [],
    "text": [*TEXT, "--optimizer", "adamw", "--keep-moments"],
    "low-rank-top-k": ["--lowrank-layers", "full", "--compressor", "topk", "--density", "0.1"],
    "switch": ["--lowrank-layers", "progressive", "--lowrank-switch-round", "1"],
    "lora-eden": ["--lora-rank", "2", "--compressor", "eden"],
    "lora-residual": ["--lora-rank", "2", "--lowrank-average", "residual", "--compressor", "none"],
    "bits-topology": ["--weight-bits", "4", "--topology", "rigl", "--sparsity", "0.5", "--readjustment-interval", "1"],
    "ensemble": ENSEMBLE,
    "sizes": [*ENSEMBLE, "--client-models", "cnn-small,mlp-small,lenet5"],
    "depths": ["--exits", "2", "--depths", "uniform:1:3"],
    "exits": ["--exits", "2"],
}


@pytest.mark.parametrize("flags", JOBS.values(), ids=JOBS)
def test_both_engines_give_the_same_bits(tmp_path: Path, flags: list[str]) -> None:
    results = []
    for engine in ("local", "flower"):
        code, outfile = run(tmp_path, engine, "--eval-clients", *flags)
        assert code == 0
        results.append(json.loads(outfile.read_text()))
    local, flower = results
    assert local["summary"]["weights-hash"] == flower["summary"]["weights-hash"]
    for a, b in zip(local["rounds"], flower["rounds"], strict=True):
        for tag in ("train/loss", "eval/accuracy", "eval/client_accuracy", "comm/uplink_bytes", "comm/downlink_bytes"):
            assert a.get(tag) == b.get(tag), tag
    assert "eval/client_accuracy" in local["rounds"][-1]


def test_a_run_that_fails_on_flowers_runtime_exits_1_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _ = run(tmp_path, "flower", "--lr", "1e6", "--epochs", "9")
    assert code == 1
    shown = capfd.readouterr()
    last = shown.err.strip().splitlines()[-1]
    assert "all 3 clients failed" in last
    assert "NaN or infinity" in last
    assert "Traceback" in shown.out  # the client's own
    assert "in encode_update" in shown.out


def test_a_run_on_flowers_runtime_goes_on_with_the_bits_of_an_undisturbed_local_run(tmp_path: Path) -> None:
    """Nothing in these settings depends on the number of rounds, so that four rounds and two more are six."""
    more = [
        "--lr-schedule",
        "constant",
        "--eval-every",
        "2",
        "--checkpoint-every",
        "2",
        "--downlink-compressor",
        "topk",
    ]
    more += ["--sparsity", "0.5", "--topology", "rigl", "--growth", "momentum", "--readjustment-interval", "1"]
    more += ["--readjustment-end", "4"]
    assert run(tmp_path, "local", *more, "--rounds", "6")[0] == 0
    assert run(tmp_path, "flower", *more, "--rounds", "4")[0] == 0
    (whole,), (folder,) = ((tmp_path / engine / "runs").iterdir() for engine in ("local", "flower"))
    assert main(["--resume", str(folder), "--rounds", "6"]) == 0
    assert outcome(folder) == outcome(whole)
