"""A federation that trains on text, as a user types it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fedsparse.commands import main
from fedsparse.report.compare import Comparison
from fedsparse.report.found import FoundRuns

MODEL = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, input_shape, classes):
        super().__init__(nn.Embedding(classes, 8), nn.Linear(8, classes))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the text of three clients."""
    folder, rng = tmp_path_factory.mktemp("language"), np.random.default_rng(0)
    (folder / "tiny.py").write_text(MODEL)
    rows = [{"text": "ß".join(rng.choice(list("abcd"), 30)), "client": int(n % 3)} for n in range(60)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def run(folder: Path, *flags: str, command: str = "") -> int:
    """Run in this process."""
    small = ["--model", f"{folder}/tiny.py:Tiny", "--clients", "3", "--clients-per-round", "2", "--rounds", "3"]
    data = ["--dataset", f"{folder}/text.jsonl", "--seq-length", "8", "--distribution", "natural", "--lr", "0.5"]
    command_line = [*([command] if command else []), *data, *small, "--logdir", str(folder / "runs")]
    return main([*command_line, "--workers", "1", *flags])


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, dict]:
    """The result of the same run with one worker and with two."""
    found = {}
    for workers in ("1", "2"):
        outfile = folder / f"{workers}.json"
        flags = ["--workers", workers, "--augment", "--eval-clients", "--eval-every", "1", "--name", workers]
        assert run(folder, *flags, "--outfile", str(outfile)) == 0
        found[workers] = json.loads(outfile.read_text())
    return found


def test_the_metrics_follow_from_the_mean_loss_over_all_tokens(results: dict[str, dict]) -> None:
    first, *later = results["1"]["rounds"]
    for row in later:
        for phase in ("train/", "eval/", "eval/client_"):
            loss = row[f"{phase}loss"]
            assert row[f"{phase}perplexity"] == pytest.approx(math.exp(loss))
            assert row[f"{phase}bits_per_byte"] == pytest.approx(loss / math.log(2) / (89 / 60))  # ß has two bytes
            assert 0 < row[f"{phase}accuracy"] < 1
    assert later[-1]["eval/perplexity"] < first["eval/perplexity"]
    summary = results["1"]["summary"]
    assert summary["perplexity"] == later[-1]["eval/perplexity"]
    assert summary["best-perplexity"] == min(row["eval/perplexity"] for row in (first, *later))


def test_two_workers_give_the_same_bits(results: dict[str, dict]) -> None:
    assert results["1"]["summary"]["weights-hash"] == results["2"]["summary"]["weights-hash"]


def test_a_report_shows_perplexity_on_a_logarithmic_axis(
    folder: Path, results: dict[str, dict], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = sorted(map(str, folder.glob("runs/*-[12]")))
    assert main(["report", *runs, "--logdir", str(folder / "reports")]) == 0
    shown = capsys.readouterr().out
    assert "| perplexity |" in shown
    assert f"| {results['1']['summary']['perplexity']:.2f} |" in shown
    assert "Perplexity: mean over" in shown
    axes = Comparison(FoundRuns(runs).runs).figure()[0].axes[0]
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "perplexity")


def test_train_central_prune_and_partition_work_on_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--name", "central", command="train-central") == 0
    (central,) = folder.glob("runs/*-central")
    flags = ["prune", "--checkpoint", str(central / "model.pt"), "--sparsity", "0.5", "--dense-layers", ""]
    assert main([*flags, "--logdir", str(folder / "pruned")]) == 0
    assert "perplexity before: " in capsys.readouterr().out
    assert run(folder, command="partition") == 0
    assert "distance of unigrams from the whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokenizer", "chars"], "tokenizer = chars: should be auto, char, byte, word,"),
        (["--seq-length", "2000"], "seq-length = 2000: a window needs 2001 tokens, but the longest training text has"),
        (["--clients", "4"], "natural has 3 clients, not 4; run with --clients 3"),
        (["--distribution", "dirichlet"], "dirichlet spreads classes, but the samples of this data set have none"),
        (["--dataset", "mnist"], "seq-length = 8 has no effect: it needs a data set of text"),
        (["--model", "cnn"], "model = cnn: "),
    ],
)
def test_what_text_cannot_do_is_one_line_and_exits_2(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(folder, *flags) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
