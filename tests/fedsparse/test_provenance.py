"""What a run folder says of its numbers' origin changes with the origin, and with nothing else."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedsparse import provenance
from fedsparse.config import Config
from fedsparse.data import load_dataset
from fedsparse.experiment import Experiment
from fedsparse.provenance import code, continued, data_hash, differences, provenance_of

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of code, in which ``code`` believes to be."""
    (tmp_path / "fedsparse").mkdir()
    (tmp_path / "fedsparse" / "__init__.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


@needs_git
def test_the_code_is_named_by_its_commit_and_called_dirty_when_a_file_differs_from_it(copy: Path) -> None:
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "one")
    clean = code()
    assert (clean["commit"], clean["dirty"]) == (git(copy, "rev-parse", "HEAD").strip(), False)
    (copy / "fedsparse" / "__init__.py").write_text("x = 2\n")
    dirty = code()
    assert (dirty["commit"], dirty["dirty"]) == (clean["commit"], True)
    assert dirty["hash"] != clean["hash"]


@needs_git
def test_code_that_no_repository_knows_has_a_hash_and_no_commit(copy: Path) -> None:
    outside = code()
    git(copy, "init", "-q")  # as around the folder into which a wheel was installed
    assert outside == code() == {"commit": None, "dirty": None, "hash": outside["hash"]}
    (copy / "fedsparse" / "new.py").write_text("")
    assert code()["hash"] != outside["hash"]


@pytest.mark.parametrize("change", ["x_train", "y_test", "mean", "crop"])
def test_the_hash_of_data_changes_with_every_part_of_it(change: str) -> None:
    data = load_dataset()
    parts = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in vars(data).items()}
    same = data_hash(SimpleNamespace(**parts))
    assert same == data_hash(data)
    if change == "crop":
        parts["crop"] += 1
    else:
        parts[change].view(-1)[-1] += 1
    assert data_hash(SimpleNamespace(**parts)) != same
    assert same[1] == []


def test_of_a_large_array_blocks_from_the_first_row_to_the_last_are_hashed_and_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = np.zeros(100_000, np.int16)
    whole, _ = data_hash(SimpleNamespace(tokens=tokens))
    monkeypatch.setattr(provenance, "LARGE", 100)
    monkeypatch.setattr(provenance, "BLOCKS", 5)
    sample = data_hash(SimpleNamespace(tokens=tokens))
    assert sample[1] == ["tokens"]
    assert sample[0] != whole
    for changed, seen in ((0, True), (-1, True), (50_000, True), (10_000, False)):
        other = tokens.copy()
        other[changed] = 1
        assert (data_hash(SimpleNamespace(tokens=other)) != sample) == seen, changed


def test_data_that_hold_no_array_have_no_hash() -> None:
    assert data_hash(SimpleNamespace(folder="far/away", classes=3)) == (None, [])


def test_the_files_of_the_users_own_code_are_hashed(tmp_path: Path) -> None:
    (file := tmp_path / "mine.py").write_text("class Mine: ...\n")
    experiment = Experiment(Config(aggregator=f"{file}:Mine", optimizer="torch.optim:RAdam", model="mlp-small"))
    before = provenance_of(experiment)["own-code"]
    file.write_text("class Mine: pass\n")
    after = provenance_of(experiment)["own-code"]
    assert before.keys() == after.keys() == {"aggregator", "optimizer"}
    assert before["optimizer"] == after["optimizer"]
    assert before["aggregator"] != after["aggregator"]


def test_a_run_that_goes_on_keeps_its_origin_and_says_what_is_different_since(tmp_path: Path) -> None:
    start = {"versions": {"torch": "2.14"}, "seed": 1}
    (tmp_path / provenance.FILE).write_text(json.dumps(start))
    once = continued(tmp_path, {"versions": {"torch": "2.15"}, "seed": 1}, round=4)
    (tmp_path / provenance.FILE).write_text(json.dumps(once))
    twice = continued(tmp_path, start, round=7)
    assert twice == {**start, "resumed": [{"after-round": 4, "versions.torch": "2.15"}, {"after-round": 7}]}
    assert differences(start, twice) == {}
