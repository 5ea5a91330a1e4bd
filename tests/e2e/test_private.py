"""Differentially private runs, as a user starts them."""

import json
from pathlib import Path

import pytest

from fedsparse.commands import main
from fedsparse.privacy.accountant import spent
from tests.e2e.kills import SMALL, outcome
from tests.e2e.test_resume import folder_in

FED_SMP = ["--compressor", "randomk", "--density", "0.2", "--shared-support", "--error-feedback", "false"]


def run(tmp_path: Path, dataset: str, name: str, *more: str) -> Path:
    flags = [*SMALL, "--workers", "1", "--dataset", dataset, "--logdir", str(tmp_path / name), *more]
    assert main(flags) == 0
    return folder_in(tmp_path / name)


def test_a_private_run_has_the_same_bits_with_any_number_of_workers_and_when_it_goes_on(
    tmp_path: Path, tiny_dataset: str
) -> None:
    flags = ["--dp-noise", "0.8", "--lr-schedule", "constant", "--compressor", "randomk", "--shared-support"]
    flags += ["--rounds", "4"]
    whole = outcome(run(tmp_path, tiny_dataset, "one", *flags))
    assert outcome(run(tmp_path, tiny_dataset, "two", *flags, "--workers", "2")) == whole
    begun = run(tmp_path, tiny_dataset, "begun", *flags, "--rounds", "2")
    assert main(["--resume", str(begun), "--rounds", "4"]) == 0
    assert outcome(begun) == whole


def test_a_result_says_what_it_reveals_and_how_that_is_counted(
    tmp_path: Path, tiny_dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((run(tmp_path, tiny_dataset, "runs", "--dp-epsilon", "3") / "result.json").read_text())
    summary, told = result["summary"], result["summary"]["privacy"]
    assert 2.95 < summary["epsilon"] <= 3
    assert told["delta"] == 6**-1.1
    assert told["release"].startswith("PoissonSampledDpEvent(sampling_probability=0.5, event=GaussianDpEvent(")
    epsilons = [row["privacy/epsilon"] for row in result["rounds"][1:]]
    assert epsilons == [pytest.approx(spent(told["noise"], 0.5, round, told["delta"])) for round in range(1, 9)]
    shown = capsys.readouterr().out
    assert "private (epsilon 3, clip 1, by server)" in shown
    assert "epsilon 3 at delta 0.14" in shown


def test_an_epsilon_holds_for_the_planned_rounds_so_they_cannot_grow(
    tmp_path: Path, tiny_dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path, tiny_dataset, "runs", "--dp-epsilon", "3", "--rounds", "2")
    assert main(["--resume", str(folder), "--rounds", "4"]) == 2
    assert "rounds = 2, and you ask for rounds = 4" in capsys.readouterr().err


def test_what_would_break_the_guarantee_is_one_line_and_exit_code_2(
    tmp_path: Path, tiny_dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", tiny_dataset, "--logdir", str(tmp_path), "--dp-noise", "1", "--sparsity", "0.5"]
    assert main([*flags, "--topology", "rigl"]) == 2
    line = capsys.readouterr().err.strip()
    assert "topology = rigl asks each client for more than its update" in line
    assert "\n" not in line


def test_central_training_has_no_noise_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-central", "--dp-noise", "1"]) == 2
    assert "train-central adds no noise for privacy" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("by", ["server", "clients"])
def test_a_private_run_on_flowers_runtime_counts_the_same_epsilon(tmp_path: Path, tiny_dataset: str, by: str) -> None:
    flags = [*FED_SMP, "--values", "f32", "--dp-noise", "1", "--dp-noise-by", by, "--rounds", "3"]
    rows = [
        outcome(run(tmp_path, tiny_dataset, engine, *flags, "--engine", engine))[1] for engine in ("local", "flower")
    ]
    local, flower = ([row["privacy/epsilon"] for row in rounds] for rounds in rows)
    assert local == flower
    assert float(flower[-1]) > 0
