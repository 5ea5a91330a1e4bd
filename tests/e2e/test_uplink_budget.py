"""`--uplink-budget`: bytes in place of a density."""

import json
import re
from pathlib import Path

import pytest

from fedsparse.commands import main
from tests.e2e.as_user import tiny
from tests.e2e.kills import outcome

SMALL = ["--clients", "6", "--clients-per-round", "3", "--rounds", "4", "--model", "mlp-small", "--batch-size", "8"]
UPLOADS = 12


def run(tmp_path: Path, name: str, *flags: str) -> Path:
    """The run folder of a small run; ``tmp_path`` must hold the data."""
    data = str(tmp_path / "tiny.npz")
    logdir = tmp_path / name
    assert main([*SMALL, "--dataset", data, "--workers", "1", "--logdir", str(logdir), *flags]) == 0
    (folder,) = logdir.iterdir()
    return folder


def uplink(folder: Path) -> list[float]:
    return [row["comm/uplink_bytes"] for row in json.loads((folder / "result.json").read_text())["rounds"][1:]]


@pytest.mark.parametrize("compressor", ["hggtopk", "stc", "sparseloco"])
@pytest.mark.parametrize("each", [700, 2500])
def test_a_run_holds_its_budget_within_5_percent_and_never_spends_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], compressor: str, each: int
) -> None:
    tiny(tmp_path)
    whole = UPLOADS * each
    folder = run(tmp_path, "run", "--uplink-budget", str(whole), "--compressor", compressor)
    assert 0.95 * whole <= sum(uplink(folder)) <= whole
    assert f"uplink-budget = {whole}: " in (shown := capsys.readouterr().out)
    assert "a client in round 1, at a density of 0." in shown


def test_a_budget_of_each_update_is_that_of_every_round(tmp_path: Path) -> None:
    tiny(tmp_path)
    rounds = uplink(run(tmp_path, "run", "--uplink-budget", "1.5kB/client"))
    assert all(0.95 * 4500 <= of_round <= 4500 for of_round in rounds)


def test_what_reports_take_is_saved_in_later_rounds(tmp_path: Path) -> None:
    tiny(tmp_path)
    more = ["--rounds", "8", "--topology", "rigl", "--sparsity", "0.5", "--dense-layers", "last"]
    rounds = uplink(
        run(tmp_path, "run", *more, "--readjustment-interval", "2", "--uplink-budget", "100kB", "--growth", "gradient")
    )
    assert max(rounds) > 1.2 * min(rounds)
    assert 95e3 <= sum(rounds) <= 100e3


def test_workers_change_no_bit_of_a_run_with_a_budget(tmp_path: Path) -> None:
    tiny(tmp_path)
    alone, together = (run(tmp_path, n, "--uplink-budget", "20kB", "--workers", n) for n in ("1", "2"))
    assert outcome(alone) == outcome(together)


@pytest.mark.slow
def test_flowers_runtime_changes_no_bit_of_a_run_with_a_budget(tmp_path: Path) -> None:
    tiny(tmp_path)
    local, flower = (
        run(tmp_path, engine, "--uplink-budget", "20kB", "--workers", "2", "--engine", engine)
        for engine in ("local", "flower")
    )
    assert outcome(local) == outcome(flower)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["1km"], "uplink-budget = 1km: should be bytes of the run, such as 1MB, or of each client in each round"),
        (["1MB", "--density", "0.1"], "density = 0.1 has no effect: it needs uplink-budget to be empty"),
        (["1MB", "--compressor", "signsgd"], "no density changes what compressor = signsgd sends"),
        (["1MB", "--compressor", "lowrank", "--rank", "2"], "no density changes what compressor = lowrank sends"),
        (["1MB", "--warmup-rounds", "3"], "every round has the same bytes; leave warmup-rounds = 3 out"),
        (["1MB", "--dp-noise", "1"], "leave dp-noise = 1.0 out"),
        (["1MB", "--topology", "ssfl", "--sparsity", "0.5"], "clients send votes or scores of all weights"),
        (["1GB"], "even the longest has only"),
        (["2kB"], "the shortest has"),
    ],
)
def test_a_budget_that_no_density_can_meet_is_one_line_and_exit_code_2(
    flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--rounds", "30", "--uplink-budget", *flags]) == 2
    shown = capsys.readouterr()
    assert line in shown.err
    assert shown.err.count("\n") == 1


def test_the_rounds_of_a_run_with_a_budget_cannot_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(tmp_path)
    folder = run(tmp_path, "run", "--uplink-budget", "20kB", "--checkpoint-every", "2")
    capsys.readouterr()
    assert main(["--resume", str(folder), "--rounds", "6"]) == 2
    assert "this run has rounds = 4, and you ask for rounds = 6" in capsys.readouterr().err


def test_a_run_that_goes_on_may_have_more_rounds_with_a_larger_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path)
    folder = run(tmp_path, "run", "--uplink-budget", "12kB", "--checkpoint-every", "1")
    for more in (["--rounds", "6"], ["--uplink-budget", "11kB"], ["--uplink-budget", "2kB/client"]):
        assert main(["--resume", str(folder), *more]) == 2
        assert capsys.readouterr().err.endswith("; only uplink-budget may grow, and rounds with it\n")
    assert main(["--resume", str(folder), "--rounds", "6", "--uplink-budget", "24kB"]) == 0
    assert re.search(r"uplink-budget = 24kB: 1\.9\d kB a client in round 5, at", capsys.readouterr().out)
    assert len(uplink(folder)) == 6
    assert 0.95 * 24e3 <= sum(uplink(folder)) <= 24e3
