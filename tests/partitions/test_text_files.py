"""Text from files: a user's own, and the corpora of the field in the formats in which people have them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsparse.partitions import DataError, Text, load_text
from fedsparse.partitions.corpora import load
from fedsparse.partitions.downloads import without_downloads

RNG = np.random.default_rng(0)


def line(words: int = 12) -> str:
    return " ".join(f"w{n}" for n in RNG.integers(0, 50, words))


def own(path: Path, tokenizer: str = "auto", seq_length: int = 16) -> Text:
    return load_text(path, tokenizer, seq_length, path.parent)


def words(data: Text, split: str) -> set[str]:
    tokens = getattr(data, split).tokens
    return set(data.tokenizer.decode(tokens.tolist()).split())


def test_paragraphs_of_a_file_are_documents_and_the_last_tenth_is_the_test(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\n\n".join(f"p{n} {line()}\n{line()}" for n in range(20)), encoding="utf-8")
    data = own(file)
    assert {word for word in words(data, "test") if word[0] == "p"} == {"p18", "p19"}
    assert {word for word in words(data, "train") if word[0] == "p"} == {f"p{n}" for n in range(18)}
    assert data.owners is None


def test_a_file_of_a_folder_is_a_client(tmp_path: Path) -> None:
    for client in "ab":
        (tmp_path / f"{client}.txt").write_text("\n".join(client + line() for _ in range(10)))
    data = own(tmp_path)
    assert data.owners is not None
    assert len(np.unique(data.owners)) == 2
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.txt").write_text(f"{split} {line()}\n" * 9)
    assert "train" not in words(own(tmp_path), "test")


def test_a_line_of_jsonl_is_a_document_with_a_client_and_a_label(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [{"text": f"d{n} {line()}", "client": (0, None)[n % 2], "label": "ab"[n // 10]} for n in range(20)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    data = own(file)
    assert {word for word in words(data, "test") if word[0] == "d"} == {"d18", "d19"}
    assert len(np.unique(data.owners)) == len(np.unique(data.labels)) == 2


BAD: list[tuple[str, bytes, str]] = [
    ("a.txt", b"", "is empty"),
    ("a.txt", b"  \n\n", "is empty"),
    ("a.txt", b"ab\xff\n", "is not UTF-8: byte 2 is 0xff"),
    ("a.txt", b"one line", "there is no test text; give it a second document .*, or a test set"),
    ("a.jsonl", b"", "is empty"),
    ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', ", line 2: should be like .*, not .*txt"),
    ("a.jsonl", b'{"text": 3}\n', ", line 1: should be like"),
    ("a.jsonl", b"[1]\n", ", line 1: should be like"),
    ("a.jsonl", b'{"text": "\xff"}\n', ", line 1: is not UTF-8"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', ", line 1: has half of a surrogate pair"),
    ("a.jsonl", b'{"text": "a", "label": "\\ud800"}\n', ", line 1: has half of a surrogate pair"),
    ("a.jsonl", b"[" * 100_000 + b"\n", ", line 1: should be like"),
    ("a.jsonl", b'{"text": "a", "client": {"id": 1}}\n', ", line 1: should be like .* number as client"),
    ("a.jsonl", b'{"text": "a", "label": [1]}\n', ", line 1: should be like"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_a_file_that_holds_no_text_is_one_line_with_its_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        own(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: no such file"):
        own(tmp_path / "none.txt")


def test_ptb_has_mikolovs_tokens(tmp_path: Path) -> None:
    text = [f" {line()} <unk> \n" for _ in range(50)]
    for split in ("train", "valid", "test"):
        (tmp_path / f"ptb.{split}.txt").write_text("".join(text))
    data = load("ptb", tmp_path, "auto", 16)
    expected = "".join(text).replace("\n", "<eos>").split()
    assert data.tokenizer.decode(data.test.tokens.tolist()).split() == expected
    assert data.classes == len(set(expected))


@pytest.mark.parametrize("stranger", ["ptb/ptb.char.train.txt", "ptb/train.jsonl", "train.txt"])
def test_ptb_is_not_joined_to_other_files(tmp_path: Path, stranger: str) -> None:
    (tmp_path / "ptb").mkdir()
    (tmp_path / stranger).write_text('{"text": "stranger"}\n' * 50)
    if stranger == "train.txt":
        with without_downloads(), pytest.raises(DataError, match=r"ptb: no ptb.train.txt, train.txt, "):
            load("ptb", tmp_path, "auto", 16)
    for split in ("train", "test"):
        (tmp_path / f"ptb/ptb.{split}.txt").write_text(line(30))
    data = load("ptb", tmp_path, "auto", 16)
    assert len(data.train.tokens) == len(data.test.tokens) == 31


ARTICLES = [" \n = Title = \n \n", " first line \n", " = = Part = = \n", " \n = Other = \n", " second line \n"]


@pytest.mark.parametrize("form", ["wikitext-2/wiki.{}.tokens", "wikitext-2-v1/{}-00000-of-00001.parquet"])
def test_wikitext_is_read_from_plain_text_and_from_parquet(tmp_path: Path, form: str) -> None:
    for split in ("train", "validation", "test"):
        file = tmp_path / form.format(split)
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".parquet":
            write_parquet(file, ARTICLES)
        else:
            file.write_text("".join(ARTICLES))
    data = load("wikitext2", tmp_path, "char", 8)
    expected = "= Title =\nfirst line\n= = Part = =\n= Other =\nsecond line\n"
    assert data.tokenizer.decode(data.train.tokens.tolist()) == expected


def write_parquet(file: Path, texts: list[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": texts}), file)


def test_openwebtext_has_a_few_documents_for_the_test(tmp_path: Path) -> None:
    (tmp_path / "openwebtext").mkdir()
    rows = [{"text": f"d{n} {line()}"} for n in range(30)]
    (tmp_path / "openwebtext/part.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load("openwebtext", tmp_path, "byte", 16)
    assert {word for word in words(data, "test") if word[0] == "d"} == {"d29"}


def test_an_absent_corpus_is_one_line_with_the_folders(tmp_path: Path) -> None:
    with (
        without_downloads(),
        pytest.raises(DataError, match=f"wikitext2: no wiki.train.tokens, .* in {tmp_path}/wikitext2 .nor in "),
    ):
        load("wikitext2", tmp_path, "auto", 16)


def test_a_bpe_is_trained_once_kept_beside_the_data_and_trained_anew_when_they_change(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    file = tmp_path / "mine.txt"
    file.write_text("\n".join(line() for _ in range(40)))
    first, again = own(file, "bpe:300"), own(file, "bpe:300")
    (kept,) = (tmp_path / "mine.txt.tokens").glob("bpe-300-*.json")
    assert torch.equal(first.train.tokens, again.train.tokens)
    assert first.classes <= 300
    text = "wohl ß 😀\n\n"
    assert first.tokenizer.decode(first.tokenizer.encode(text)) == text
    assert own(file, str(kept)).classes == first.classes
    file.write_text("\n".join(line() for _ in range(41)))
    own(file, "bpe:300")
    assert len(list(kept.parent.iterdir())) == 2
    kept.write_text("{}")
    with pytest.raises(DataError, match="damaged, or no tokenizer"):
        own(file, str(kept))


def test_tokens_on_disk_are_those_of_the_tokenizer_that_is_in_its_file_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tokenizers")
    monkeypatch.setattr("fedsparse.partitions.corpus.LARGE", 0)
    file = tmp_path / "mine.txt"
    file.write_text("ab\n" * 40)
    for tokens in ("abĊ", "baĊ"):
        (tmp_path / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
        data = own(file, str(tmp_path), 4)
        assert data.tokenizer.decode(data.train.tokens[:3].tolist()) == "ab\n"


def test_gpt2_is_found_as_vocabulary_and_merges_in_the_data_folder(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    file = tmp_path / "mine.txt"
    file.write_text("abab abab\n" * 40)
    with without_downloads(), pytest.raises(DataError, match=f"tokenizer = gpt2: no tokenizer in {tmp_path}/gpt2"):
        own(file, "gpt2")
    (tmp_path / "gpt2").mkdir()
    tokens = ["a", "b", "Ġ", "Ċ", "ab", "abab", "<|endoftext|>"]
    (tmp_path / "gpt2/vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (tmp_path / "gpt2/merges.txt").write_text("#version: 0.2\na b\nab ab\n")
    data = own(file, "gpt2", 4)
    assert data.train.tokens[:4].tolist() == [5, 2, 5, 6]
