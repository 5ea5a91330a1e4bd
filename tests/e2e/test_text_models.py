"""The language models in a federation: a word list in PTB's format, and a start from an earlier run."""

from pathlib import Path

import numpy as np
import pytest

import fedsparse

SMALL = {"clients": 2, "clients_per_round": 2, "rounds": 1, "local_steps": 2, "batch_size": 4, "workers": 1}

SHARES = 0.7 ** np.arange(14) / np.sum(0.7 ** np.arange(14))


@pytest.fixture(scope="module")
def ptb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Mikolov's three files, of fourteen words."""
    folder, rng = tmp_path_factory.mktemp("text") / "ptb", np.random.default_rng(0)
    folder.mkdir()
    words = [f"w{i}" for i in range(13)] + ["<unk>"]
    for split, lines in (("train", 60), ("valid", 10), ("test", 10)):
        text = "".join(f" {' '.join(rng.choice(words, 9, p=SHARES))} \n" for _ in range(lines))
        (folder / f"ptb.{split}.txt").write_text(text)
    return folder.parent


def run(folder: Path, logdir: Path, **settings: object) -> fedsparse.Result:
    text = {"dataset": "ptb", "data_dir": str(folder), "seq_length": 8, "logdir": str(logdir)}
    return fedsparse.run(SMALL | text | settings)


def test_an_lstm_reads_ptb_and_a_run_starts_from_the_weights_of_an_earlier_one(ptb: Path, tmp_path: Path) -> None:
    first = run(ptb, tmp_path, model="lstm-small", lr=1.0, clip_norm=5.0, rounds=3)
    start, end = first.rounds[0]["eval/perplexity"], first.rounds[-1]["eval/perplexity"]
    assert end < start - 1
    assert start == pytest.approx(15, rel=0.1), "fourteen words and the end of a line"
    second = run(ptb, tmp_path, model="lstm-small", init=str(first.folder))
    assert second.rounds[0]["eval/perplexity"] == pytest.approx(end)
    other = tmp_path / "other/ptb"
    other.mkdir(parents=True)
    for split in ("train", "test"):
        (other / f"ptb.{split}.txt").write_text((ptb / f"ptb/ptb.{split}.txt").read_text().replace("w0", "v0"))
    with pytest.raises(fedsparse.ConfigError, match=r"^init = \S+: was trained with other tokens of the same number"):
        run(other.parent, tmp_path, model="lstm-small", init=str(first.folder))


def test_gpt2_learns_the_same_from_wikitexts_text_and_from_its_parquet_files(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rng, outcomes = np.random.default_rng(0), []
    lines = ["", " = Title = ", ""] + [" ".join(rng.choice(["the", "a", "unk", "<unk>"], 12)) for _ in range(80)]
    for form in ("tokens", "parquet"):
        (folder := tmp_path / form / "wikitext2").mkdir(parents=True)
        for split in ("train", "test"):
            if form == "tokens":
                (folder / f"wiki.{split}.tokens").write_text("".join(f" {line}\n" for line in lines))
            else:
                table = pyarrow.table({"text": [f" {line}\n" for line in lines]})
                parquet.write_table(table, folder / f"{split}.parquet")
        text = {"dataset": "wikitext2", "tokenizer": "word", "model": "gpt2-nano", "optimizer": "adamw", "lr": 0.003}
        result = run(folder.parent, tmp_path / "runs", **text)
        assert result.rounds[-1]["eval/perplexity"] < result.rounds[0]["eval/perplexity"]
        outcomes.append(result.summary["weights-hash"])
    assert outcomes[0] == outcomes[1]
