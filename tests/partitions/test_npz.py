"""An .npz file as a data set: `as_dataset` takes its arrays, and a fault of the file is one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsparse.partitions import DataError, as_dataset, load_npz

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 10), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.npz"


def save(path: Path, **more: Any) -> Path:
    """A valid file; `more` adds or replaces arrays."""
    np.savez(path, **({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:5], "y_test": LABELS[:5]} | more))
    return path


def test_a_file_holds_images_and_labels(path: Path) -> None:
    data = load_npz(save(path))
    assert np.array_equal(data.x_train[:, 0], IMAGES)
    assert np.array_equal(data.x_test[:, 0], IMAGES[:5])
    assert data.y_train.tolist() == LABELS.tolist()
    assert (data.classes, data.class_names, data.crop, data.flip, data.owners) == (3, ("0", "1", "2"), 1, True, None)


def test_a_file_may_have_the_client_of_each_sample_and_class_names(path: Path) -> None:
    data = load_npz(save(path, clients=LABELS[::-1] * 10, class_names=["cat", "dog", "eel"]))
    assert data.owners is not None
    assert data.owners.tolist() == LABELS[::-1].tolist()
    assert data.class_names == ("cat", "dog", "eel")


def test_a_loader_may_return_an_open_file(path: Path) -> None:
    with np.load(save(path)) as archive:
        assert np.array_equal(as_dataset(archive, "mine").x_train[:, 0], IMAGES)


def test_a_wrong_array_is_one_line_with_the_file_and_the_array(path: Path) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    for more, message in (({"y_test": LABELS}, "x_test has 5"), ({"x_train": objects}, "cannot read x_train: ")):
        with pytest.raises(DataError) as caught:
            load_npz(save(path, **more))
        assert str(caught.value).startswith(f"{path}: {message}")
        assert "\n" not in str(caught.value)


def test_an_absent_file_is_one_line(path: Path) -> None:
    with pytest.raises(DataError, match=r"mine.npz: no such file"):
        load_npz(path)


def test_a_file_that_is_no_archive_is_one_line(path: Path) -> None:
    for content in (b"", b"not a zip", b"PK\x03\x04 but then nothing", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"mine.npz: cannot read the file: ") as caught:
            load_npz(path)
        assert "pickle" not in str(caught.value)  # NumPy takes any text for a pickle, and advises to load it
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match="archive but a single array"):
        load_npz(path)


def test_no_truncation_and_no_flipped_byte_gives_anything_but_a_data_set_or_one_line(path: Path) -> None:
    good = save(path, clients=LABELS, class_names=["cat", "dog", "eel"]).read_bytes()
    for number in range(300):
        damaged = bytearray(good)
        damaged[RNG.integers(len(good))] ^= 1 << RNG.integers(8)
        bad = path.with_name(f"{number}.npz")
        bad.write_bytes(damaged if number % 2 else good[: RNG.integers(len(good))])
        try:
            load_npz(bad)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 (some flips hit a name or a time stamp, and are harmless)
