"""Sparse runs as a user types them."""

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedsparse.commands import main
from tests.e2e.as_user import run

DYNAMIC = ["--sparsity", "0.5", "--need-readjust", "--readjustment-interval", "1", "--beta", "0.1", "--rounds", "4"]

WEIGHTS = 55_248
"""Weights of cnn-small's convolutions and linear layers."""


def test_a_dynamic_sparse_run_measures_its_topology_and_shows_it_in_tensorboard(
    tmp_path: Path, tiny_dataset: str
) -> None:
    result = run(tmp_path, *DYNAMIC, "--dataset", tiny_dataset, "--clients", "8")
    assert all(r["topology/density"] == pytest.approx(0.5, abs=1e-4) for r in result["rounds"])
    assert [r["topology/changed"] > 0 for r in result["rounds"]] == [False, True, True, False, False]
    (folder,) = (tmp_path / "runs").iterdir()
    rows = list(csv.DictReader((folder / "rounds.csv").open()))
    assert float(rows[2]["topology/changed"]) == result["rounds"][2]["topology/changed"]
    assert not [column for column in rows[0] if column.startswith("density/")]
    board = EventAccumulator(str(folder)).Reload().Tags()
    assert {"density/0.weight", "density/7.weight", "topology/consensus", "topology/changed"} <= set(board["scalars"])
    kinds = {tag.partition("/")[0] for tag in board["histograms"]}
    assert kinds == {"weights", "update", "residual"}
    assert any(tag.startswith("mask/") for tag in board["images"])


def test_a_seed_gives_the_same_bits_with_any_number_of_workers(tmp_path: Path, tiny_dataset: str) -> None:
    flags = [*DYNAMIC, "--dataset", tiny_dataset, "--clients", "8", "--eval-clients"]
    one, two = (run(tmp_path, *flags, "--workers", workers) for workers in ("1", "2"))
    assert one["summary"]["weights-hash"] == two["summary"]["weights-hash"]
    assert one["summary"]["uplink-bytes"] == two["summary"]["uplink-bytes"]


def test_ssfl_asks_for_saliency_with_any_downlink(tmp_path: Path, tiny_dataset: str) -> None:
    flags = ["--sparsity", "0.8", "--topology", "ssfl", "--downlink-compressor", "topk"]
    result = run(tmp_path, *flags, "--dataset", tiny_dataset, "--clients", "8")
    assert result["rounds"][0]["comm/uplink_bytes"] > 0
    assert result["rounds"][-1]["topology/density"] == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize(("rounds", "told"), [("10", True), ("20", False)])
def test_a_run_prints_that_its_topology_will_never_be_readjusted(
    tmp_path: Path, tiny_dataset: str, rounds: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sparsity", "0.5", "--need-readjust", "--dataset", tiny_dataset, "--clients", "8"]
    run(tmp_path, *flags, "--rounds", rounds)
    assert ("the topology stays as it is: readjustment-interval = 10" in capsys.readouterr().out) is told


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--sparsity", "0.999"], "sparsity = 0.999 keeps 55 of 55,248 weights, but 464 are in dense layers"),
        (["--sparsity", "0.5", "--dense-layers", "fc9"], "dense-layers: no layer 'fc9'; there are 0.weight"),
        (["--need-readjust"], "need-readjust with sparsity = 0"),
        (["--sparsity", "0.5", "--topology", "static", "--need-readjust"], "topology = static, which never changes"),
        (["--sparsity", "0.99999", "--topology", "small-dense"], "small-dense: the narrowest network has"),
    ],
)
def test_an_impossible_sparsity_is_one_line_before_the_run(
    tmp_path: Path, flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--logdir", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert line in shown.err
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.rglob("rounds.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["feddst", "rigl", "ssfl"])
def test_flowers_runtime_gives_the_same_bits(tmp_path: Path, tiny_dataset: str, topology: str) -> None:
    flags = ["--sparsity", "0.5", "--topology", topology, "--dataset", tiny_dataset]
    flags += ["--readjustment-interval", "1"] if topology != "ssfl" else []  # which never changes
    results = []
    for engine in ("local", "flower"):
        outfile = tmp_path / f"{engine}.json"
        size = ["--clients", "8", "--clients-per-round", "3", "--rounds", "3", "--workers", "2", "--eval-every", "1"]
        files = ["--logdir", str(tmp_path / "runs"), "--outfile", str(outfile)]
        assert main([*size, *flags, *files, "--engine", engine]) == 0
        results.append(json.loads(outfile.read_text()))
    local, flower = results
    assert local["summary"]["weights-hash"] == flower["summary"]["weights-hash"]
    for a, b in zip(local["rounds"], flower["rounds"], strict=True):
        for tag in ("topology/density", "topology/changed", "comm/uplink_bytes", "comm/downlink_bytes"):
            assert a.get(tag) == b.get(tag), tag
        assert round(a["topology/density"] * WEIGHTS) == round(0.5 * WEIGHTS)
