"""What `main.py` says travelled, against what a dense run of the same settings sends."""

import re
from pathlib import Path

import pytest

from tests.e2e.as_user import run, tiny


def travelled(result: dict) -> int:
    return result["summary"]["uplink-bytes"] + result["summary"]["downlink-bytes"]


def times_below(shown: str, way: str) -> float:
    (line,) = (line for line in shown.splitlines() if line.startswith(way))
    return float(re.search(r", (\S+) times below dense", line)[1])


@pytest.mark.parametrize(
    "flags",
    [
        ["--eval-clients"],
        ["--eval-clients", "--eval-every", "2"],
        ["--downlink-compressor", "topk"],
        ["--sparsity", "0.5", "--topology", "static"],
        ["--sparsity", "0.5", "--topology", "small-dense"],
    ],
)
def test_both_ways_are_compared_with_the_same_messages_of_the_whole_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    small = ["--dataset", tiny(tmp_path), "--clients", "6", "--rounds", "4"]
    evaluation = [flag for flag in flags if flag.startswith("--eval") or flag == "2"]
    dense = run(tmp_path, *small, *evaluation, "--compressor", "none")
    shown = capsys.readouterr().out
    assert (times_below(shown, "uplink"), times_below(shown, "both ways")) == (1.0, 1.0)
    summary = dense["summary"]
    assert summary["dense-uplink-bytes"] + summary["dense-downlink-bytes"] == travelled(dense)

    compressed = run(tmp_path, *small, *flags)
    shown = capsys.readouterr().out
    assert times_below(shown, "both ways") == pytest.approx(travelled(dense) / travelled(compressed), abs=0.051)
    uplinks = [result["summary"]["uplink-bytes"] for result in (dense, compressed)]
    assert times_below(shown, "uplink") == pytest.approx(uplinks[0] / uplinks[1], abs=0.051)
