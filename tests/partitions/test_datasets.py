"""The embedded data set, torchvision's data sets, and one clear line when a data set is missing."""

import base64
import gzip
import hashlib
import json
import pickle
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets

from fedsparse.partitions import DataError, Dataset, embedded, torchvision_sets

LOADERS: dict[str, Callable[[Path], Dataset]] = {
    "mnist": torchvision_sets.mnist,
    "fashion-mnist": torchvision_sets.fashion_mnist,
    "cifar10": torchvision_sets.cifar10,
    "cifar100": torchvision_sets.cifar100,
}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request fails at once; the list has the URLs that were tried."""
    tried: list[str] = []

    def refuse(request: urllib.request.Request, *_: object, **__: object) -> None:
        tried.append(request.full_url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tried


def write_mnist(folder: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    arrays = {}
    for split, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
        arrays[split] = images
    return arrays


def test_the_embedded_set_has_the_documented_shapes_and_is_balanced() -> None:
    data = embedded.load(Path())
    assert data.x_train.shape == (10_000, 1, 28, 28)
    assert data.x_test.shape == (2_000, 1, 28, 28)
    assert data.x_train.dtype == data.x_test.dtype == torch.uint8
    assert data.y_train.dtype == data.y_test.dtype == torch.int64
    assert data.y_train.bincount().tolist() == [1000] * 10
    assert data.y_test.bincount().tolist() == [200] * 10
    assert data.input_shape == (1, 28, 28)
    assert (data.task, data.classes, data.class_names[9]) == ("classify", 10, "Ankle boot")


def test_the_embedded_bytes_have_the_checksums_of_the_file() -> None:
    data = embedded.load(Path())
    stored = json.loads(embedded.PATH.read_text())["arrays"]
    for key in ("x_train", "x_test"):
        assert hashlib.sha256(getattr(data, key).numpy().tobytes()).hexdigest() == stored[key]["sha256"]
    for key in ("y_train", "y_test"):
        labels = getattr(data, key).numpy().astype(np.uint8)
        assert hashlib.sha256(labels.tobytes()).hexdigest() == stored[key]["sha256"]


def test_a_damaged_embedded_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = json.loads(embedded.PATH.read_text())
    stored["arrays"]["y_test"]["sha256"] = "0" * 64
    path = tmp_path / "damaged.json"
    monkeypatch.setattr(embedded, "PATH", path)
    path.write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"damaged \(the checksum of y_test does not match\)"):
        embedded.load(tmp_path)
    path.write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        embedded.load(tmp_path)
    stored["arrays"]["x_test"]["xz_b85"] = stored["arrays"]["x_test"]["xz_b85"][:1000]
    path.write_text(json.dumps(stored))
    with pytest.raises(DataError, match="damaged"):
        embedded.load(tmp_path)


@given(st.binary(max_size=64))
def test_the_fast_base85_decoder_agrees_with_the_standard_library(raw: bytes) -> None:
    assert embedded.b85decode(base64.b85encode(raw).decode()) == raw


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_existing_mnist_files_are_read_without_the_network(tmp_path: Path, no_network: list[str], name: str) -> None:
    arrays = write_mnist(tmp_path / torchvision_sets.SOURCES[name].folder, np.random.default_rng(0))
    data = LOADERS[name](tmp_path)
    assert torch.equal(data.x_train.squeeze(1), torch.from_numpy(arrays["train"]))
    assert torch.equal(data.x_test.squeeze(1), torch.from_numpy(arrays["t10k"]))
    assert data.classes == len(data.class_names) == 10
    assert data.class_names[0] in ("0", "T-shirt/top")
    assert no_network == []


@pytest.mark.parametrize(("name", "classes", "key"), [("cifar10", 10, "labels"), ("cifar100", 100, "fine_labels")])
def test_existing_cifar_files_are_read_without_the_network(
    tmp_path: Path, no_network: list[str], monkeypatch: pytest.MonkeyPatch, name: str, classes: int, key: str
) -> None:
    cifar = getattr(datasets, torchvision_sets.SOURCES[name].torchvision_class)
    folder = tmp_path / torchvision_sets.SOURCES[name].folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)

    def write(file_name: str, content: object) -> str:
        (folder / file_name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file_name).read_bytes()).hexdigest()

    batch = {"data": pixels.reshape(4, -1), key: [3, 0, 9, 1]}
    monkeypatch.setattr(cifar, "train_list", [[f"part{i}", write(f"part{i}", batch)] for i in range(2)])
    monkeypatch.setattr(cifar, "test_list", [["test", write("test", batch)]])
    names = [f"name {label}" for label in range(classes)]
    meta = {"filename": "meta", "key": "names", "md5": write("meta", {"names": names})}
    monkeypatch.setattr(cifar, "meta", meta)

    data = LOADERS[name](tmp_path)
    assert torch.equal(data.x_test, torch.from_numpy(pixels))
    assert data.x_train.shape == (8, 3, 32, 32)
    assert data.y_test.tolist() == [3, 0, 9, 1]
    assert data.class_names == tuple(names)
    assert (data.crop, data.flip, data.mean.shape) == (4, True, (3,))
    assert no_network == []


@pytest.mark.parametrize("name", LOADERS)
def test_no_network_is_one_line_with_the_set_the_place_and_the_way_out(
    tmp_path: Path, no_network: list[str], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(DataError) as caught:
        LOADERS[name](tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(
        f"{name}: not found in {tmp_path / torchvision_sets.SOURCES[name].folder}, and the download failed"
    )
    assert "Name or service not known" in line
    assert "fashion-mnist-mini" in line
    assert no_network
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1  # "downloading ... into ...", and none of torchvision's chatter


def test_a_truncated_file_is_one_line_and_not_a_traceback(tmp_path: Path, no_network: list[str]) -> None:
    folder = tmp_path / "MNIST/raw"
    write_mnist(folder, np.random.default_rng(0))
    for damage in (b"", b"abc", (folder / "train-images-idx3-ubyte").read_bytes()[:-100]):
        (folder / "train-images-idx3-ubyte").write_bytes(damage)
        with pytest.raises(DataError, match=r"^mnist: the files in .*MNIST/raw are damaged; delete that folder"):
            torchvision_sets.mnist(tmp_path)
    assert no_network == []


def test_an_unwritable_data_folder_is_one_line(tmp_path: Path, no_network: list[str]) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="mnist: not found in"):
        torchvision_sets.mnist(tmp_path / "data")


def test_archives_already_there_are_unpacked_without_the_network(
    tmp_path: Path, no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "MNIST/raw"
    write_mnist(folder, np.random.default_rng(0))
    resources = []
    for file in sorted(folder.iterdir()):
        packed = gzip.compress(file.read_bytes())
        file.unlink()
        (folder / f"{file.name}.gz").write_bytes(packed)
        resources.append((f"{file.name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    assert len(torchvision_sets.mnist(tmp_path).x_train) == 30
    assert no_network == []
