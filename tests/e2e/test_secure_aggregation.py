"""Secure aggregation as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsparse.commands import main
from tests.e2e.as_user import tiny

SETTINGS = ["--clients", "6", "--clients-per-round", "4", "--rounds", "4", "--model", "mlp-small", "--batch-size", "8"]


def summary_of(folder: Path, data: str, *flags: str) -> dict[str, Any]:
    assert main([*SETTINGS, "--dataset", data, "--logdir", str(folder), *flags]) == 0
    (result,) = folder.glob("*/result.json")
    return json.loads(result.read_text())["summary"]


def test_a_run_trains_as_in_the_open_and_with_the_same_bits_on_any_number_of_workers(tmp_path: Path) -> None:
    data, flags = tiny(tmp_path), ["--compressor", "randomk", "--shared-support", "--density", "0.5"]
    open_run = summary_of(tmp_path / "open", data, *flags, "--workers", "1")
    one, two = (
        summary_of(tmp_path / workers, data, *flags, "--workers", workers, "--secure-aggregation")
        for workers in ("1", "2")
    )
    assert one["weights-hash"] == two["weights-hash"] != open_run["weights-hash"]
    assert one["accuracy"] == pytest.approx(open_run["accuracy"], abs=0.05)
