"""Finding the results of runs in folders and files."""

import json
from pathlib import Path

import pytest

from fedsparse.errors import ConfigError
from fedsparse.report.results import find_results
from tests.fedsparse.report.made_up import result


def write(folder: Path, content: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    run = write(tmp_path / "a", result([0.1, 0.5]))
    assert len(find_results([run, run / "result.json", tmp_path])) == 1


def test_a_result_of_another_kind_is_refused_alone_and_skipped_among_others(tmp_path: Path) -> None:
    write(tmp_path / "a", result([0.1, 0.5]))
    other = write(tmp_path / "b", {"accuracy": {}})
    assert len(find_results([tmp_path])) == 1
    with pytest.raises(ConfigError, match="is not the result of a run"):
        find_results([other])


def test_a_damaged_result_among_others_is_not_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a", result([0.1, 0.5]))
    write(tmp_path / "b", {})
    (tmp_path / "b" / "result.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        find_results([tmp_path])


@pytest.mark.parametrize("part", [{"summary": {}}, {"summary": []}, {"rounds": [1]}, {"rounds": {}}])
def test_a_damaged_result_is_refused_in_one_line(tmp_path: Path, part: dict) -> None:
    with pytest.raises(ConfigError, match="is damaged"):
        find_results([write(tmp_path / "a", result([0.1]) | part)])
