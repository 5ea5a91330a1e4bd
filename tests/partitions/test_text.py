"""Text as windows of tokens: what a window holds, who owns it, and what is left out."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsparse.partitions import (
    Corpus,
    DataError,
    Document,
    Text,
    dirichlet,
    natural_clients,
    partition,
    read_corpus,
    shakespeare,
    shards,
)
from fedsparse.partitions.corpus import held_out
from fedsparse.partitions.token_store import encoded, stored
from fedsparse.partitions.tokenizer import Char, Word

TRAIN = [Document(f"{client}{label} " * 9, client, label) for label in "xy" for client in "cab"]
TEST = [Document("abc xy " * 9, "a")]


def text(seq_length: int = 5, tokenizer: str = "char", **corpus: object) -> Text:
    return read_corpus(Corpus(**{"train": TRAIN, "test": TEST} | corpus), tokenizer, seq_length)  # type: ignore[arg-type]


def windows(data: Text, indices: list[int]) -> list[tuple[str, str]]:
    """Inputs and targets as text."""
    x, y = data.fetch(torch.tensor(indices))(torch.arange(len(indices)))
    return [(data.tokenizer.decode(a.tolist()), data.tokenizer.decode(b.tolist())) for a, b in zip(x, y, strict=True)]


def test_windows_are_a_clients_text_in_order_cut_by_length_and_targets_follow_inputs() -> None:
    data = text()
    assert data.input_shape == (5,)
    assert data.owners is not None
    for number, client in enumerate("cab"):  # numbered as they appear
        whole = "".join(d.text + "\n" for d in TRAIN if d.client == client)
        mine = np.flatnonzero(data.owners == number).tolist()
        expected = [(whole[i : i + 5], whole[i + 1 : i + 6]) for i in range(0, len(whole) - 5, 5)]
        assert windows(data, mine) == expected
    assert data.train_size == len(data.owners)


def test_every_token_of_the_vocabulary_is_a_class_and_unknown_characters_are_one() -> None:
    data = text(test=[Document("aß€😀" * 5, "a")])
    assert data.classes == 1 + len(set("\n cabxy"))
    x, _ = data.test_batch(torch.tensor([0]))
    assert data.tokenizer.decode(x[0].tolist()) == "a\ufffd\ufffd\ufffda"
    assert {token.item() for token in x.unique()} <= set(range(data.classes))


def test_bytes_per_token_are_those_of_the_test_text() -> None:
    test = [Document("aß b", "a"), Document("c", "a")] * 9
    assert text(test=test).bytes_per_token == (6 + 2) / (5 + 2)
    assert text(test=test, tokenizer="byte").bytes_per_token == 1


def test_a_shifted_window_stays_in_the_windows_of_its_client_that_it_may_see() -> None:
    data = text()
    assert data.owners is not None
    mine = np.flatnonzero(data.owners == 1)
    held_out = mine[4]
    seen = torch.from_numpy(np.setdiff1d(mine, [held_out]))
    allowed = {int(s) + i for s in data.train.starts[seen] for i in range(6)}
    forbidden = {int(data.train.starts[held_out]) + i for i in range(1, 5)}
    places = torch.arange(len(data.train.tokens))
    spy = Text(**{**vars(data), "train": type(data.train)(places.int(), data.train.starts)})
    fetch = spy.fetch(seen, torch.Generator().manual_seed(0))
    found = Counter[int]()
    for _ in range(200):
        x, y = fetch(torch.arange(len(seen)))
        assert torch.equal(y, x + 1)
        assert {*x.flatten().tolist(), *y.flatten().tolist()} <= allowed
        found.update((x[:, 0] - data.train.starts[seen]).tolist())
    assert allowed.isdisjoint(forbidden)
    assert set(found) == {0, -1, -2, -3, -4}


def test_a_token_above_32767_comes_back_whole() -> None:
    class Far(Char):
        size = 50_257

        def encode(self, text: str) -> np.ndarray:
            return np.arange(50_000, 50_000 + len(text))

    tokenizer = Far(["a"])
    tokenizer.size = 50_257
    stream = encoded([("abcdef", "", "")], tokenizer, {})
    assert stream.tokens.dtype == np.int16
    data = text()
    x, _ = type(data.train)(torch.from_numpy(stream.tokens), torch.tensor([0])).batch(torch.tensor([0]), 4)
    assert x.tolist() == [[50_000, 50_001, 50_002, 50_003]]


def test_natural_clients_and_labels_serve_the_distributions() -> None:
    data = text()
    split = partition(data.labels, natural_clients.owners, 3, seed=0, natural=data.owners)
    assert split.sizes.tolist() == np.bincount(data.owners).tolist()  # type: ignore[arg-type]
    for owners in (dirichlet.owners, shards.owners):
        assert partition(data.labels, owners, 2, seed=0).sizes.sum() == data.train_size
    assert data.labels is not None
    of_x, of_y = ([w[0] for w in windows(data, np.flatnonzero(data.labels == label).tolist())] for label in (0, 1))
    assert sum("y" in window for window in of_x) <= 3  # the last of each client may reach into the other label
    assert not any("x" in window for window in of_y)


def test_text_without_labels_is_sharded_in_its_order_and_has_no_classes_to_spread() -> None:
    data = text(train=[Document("abcdefgh" * 20)], test=[Document("abcdefgh")])
    assert (data.labels, data.owners) == (None, None)
    split = partition(data.labels, shards.owners, 4, seed=0, samples=data.train_size, classes_per_client=1)
    assert all((np.diff(split[client]) == 1).all() for client in range(4))
    with pytest.raises(DataError, match="dirichlet spreads classes, but the samples"):
        partition(data.labels, dirichlet.owners, 4, seed=0, samples=data.train_size, name="dirichlet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": [*TRAIN, Document("ab", "tiny")]}, "window needs 6 tokens, but .* client 'tiny' has 3; lower it"),
        ({"train": []}, "there is no training text"),
        ({"test": []}, "there is no test text"),
        ({"test": [Document("ab", "a")]}, "seq-length = 5: a window needs 6 tokens, but the longest test text has 3"),
        ({"train": iter(TRAIN)}, "Corpus: documents are read several times, so give a list, not a generator"),
        ({"tokenizer": "bpe"}, "tokenizer = bpe: needs the size of its vocabulary, such as bpe:8000"),
        ({"tokenizer": "bpe:7"}, "tokenizer = bpe:7: the size of a vocabulary is 300 to"),
        ({"tokenizer": "/none"}, "no tokenizer in /none: looked for tokenizer.json"),
    ],
)
def test_text_that_cannot_be_cut_is_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        text(**changes)  # type: ignore[arg-type]


def test_words_are_the_most_frequent_ones_and_lines_end_with_eos() -> None:
    tokenizer = Word(["b b a <unk>\na b c", "a b"], size=4)
    assert tokenizer.words == ["<unk>", "<eos>", "b", "a"]
    assert tokenizer.decode(tokenizer.encode("a d\nb")) == "a <unk> <eos> b"
    assert tokenizer.end == 1


def test_tokens_kept_on_disk_equal_those_in_memory_and_are_read_again(tmp_path: Path) -> None:
    tokenizer, place = Char(d.text for d in TRAIN), tmp_path / "kept" / "train"
    memory, clients = encoded(TRAIN, tokenizer, {}), dict[str, int]()
    for documents in (TRAIN, []):  # nothing is read the second time
        disk = stored(documents, tokenizer, clients, place)
        assert isinstance(disk.tokens, np.memmap)
        for name in ("tokens", "lengths", "clients", "labels", "bytes"):
            assert np.array_equal(getattr(disk, name), getattr(memory, name)), name


def test_documents_are_counted_once_to_hold_out_a_test() -> None:
    class Counted(list[Document]):
        passes = 0

        def __iter__(self) -> Iterator[Document]:
            self.passes += 1
            return super().__iter__()

    documents = Counted([Document(f"{n} abc abc") for n in range(30)])
    train, test = held_out(documents)
    assert [d.text[:2] for d in list(test)] == ["27", "28", "29"]
    assert list(train) + list(test) == list.copy(documents)
    assert documents.passes == 4


def test_shakespeare_is_embedded_with_a_client_a_role() -> None:
    data = shakespeare.load(Path(), "auto", 128)
    assert (data.classes, data.test_size, data.bytes_per_token) == (67, 1161, 1.0)
    assert len(np.unique(data.owners)) == 100
    assert len(np.unique(data.labels)) == 32
    assert data.tokenizer.decode(data.train.tokens[:20].tolist()) == "In delivering my son"


def test_the_picture_shows_tokens_and_distances_of_unigrams() -> None:
    data = text(train=[Document("a" * 59, "a"), Document("b" * 59, "b")], test=[Document("a" * 9)])
    split = partition(data.labels, natural_clients.owners, 2, seed=0, samples=data.train_size, natural=data.owners)
    shown = data.table(split, 80).splitlines()
    assert shown[1].split() == ["client", "tokens", "distance"]
    assert shown[2].split() == ["0", "55", "0.500"]
    assert len(data.plot(split).axes) == 2
