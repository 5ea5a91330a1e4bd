"""A data set of one's own, in every accepted form, and the line for every form that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from partitions import DataError, Dataset, load_dataset

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 8, 10), dtype=np.uint8)
LABELS = np.arange(12) % 3


def save(path: Path, **changes: Any) -> str:
    """A good file, but for `changes`; a change to None leaves the key out."""
    arrays = {"x_train": GREY, "y_train": LABELS, "x_test": GREY[:5], "y_test": LABELS[:5]} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return str(path)


def load_images(path: Path, images: np.ndarray) -> Dataset:
    return load_dataset(save(path, x_train=images, x_test=images[:5]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.npz"


def test_grey_images_without_a_channel_axis_get_one(path: Path) -> None:
    data = load_images(path, GREY)
    assert data.input_shape == (1, 8, 10)
    assert torch.equal(data.x_train[:, 0], torch.from_numpy(GREY))
    assert (data.name, data.classes, data.class_names, data.crop, data.flip) == ("mine", 3, ("0", "1", "2"), 1, True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_channels_last_and_channels_first_give_the_same_images(path: Path, channels: int, dtype: type) -> None:
    first = RNG.integers(0, 256, (12, channels, 8, 10)).astype(dtype)
    expected = torch.from_numpy(first.astype(np.uint8 if dtype == np.uint8 else np.float32))
    for number, images in enumerate((first, first.transpose(0, 2, 3, 1))):
        data = load_images(path.with_name(f"{number}.npz"), images)
        assert torch.equal(data.x_train, expected)
        assert data.x_train.dtype == expected.dtype
        assert data.x_train.is_contiguous()


def test_mean_and_deviation_are_those_of_the_training_images(path: Path) -> None:
    images = RNG.normal([1000.0, -5.0, 0.1], [1.0, 20.0, 0.01], (2500, 6, 6, 3))
    labels = np.arange(2500) % 3
    data = load_dataset(save(path, x_train=images, y_train=labels, x_test=images[:5]))
    np.testing.assert_allclose(data.mean, images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(data.std, images.std((0, 1, 2)), rtol=1e-4)


def test_a_constant_channel_does_not_divide_by_zero(path: Path) -> None:
    assert load_images(path, np.full((12, 8, 8), 7, np.uint8)).std.tolist() == [1.0]


def test_labels_in_a_column_are_accepted_as_keras_writes_them(path: Path) -> None:
    assert load_dataset(save(path, y_train=LABELS[:, None].astype(np.uint8))).y_train.tolist() == LABELS.tolist()


NAN_IN_IMAGE_2 = GREY.astype(np.float32)
NAN_IN_IMAGE_2[2, 0, 0] = np.nan
BAD = [
    ({"x_test": None, "y_test": None}, r"no x_test, y_test in it \(it has x_train, y_train\)"),
    ({"x_train": GREY.astype(np.int64)}, "x_train has dtype int64; images are uint8 or floating point"),
    ({"x_train": GREY[:0], "y_train": LABELS[:0]}, r"x_train is empty, shape \(0, 8, 10\)"),
    ({"x_train": GREY[0]}, r"x_train has shape \(8, 10\); images are"),
    ({"x_train": GREY[:, :, :, None, None]}, r"x_train has shape \(12, 8, 10, 1, 1\)"),
    ({"x_train": np.zeros((12, 4, 8, 8), np.uint8)}, r"x_train has shape \(12, 4, 8, 8\)"),
    ({"x_train": np.zeros((12, 3, 8, 3), np.uint8)}, "x_train has shape .* which axis holds the channels"),
    ({"x_train": NAN_IN_IMAGE_2}, "x_train has NaN or infinite pixels, the first in image 2"),
    ({"x_test": np.full((5, 8, 10), 1e300)}, "x_test has NaN or infinite pixels, the first in image 0"),
    ({"x_train": GREY[:7]}, "x_train has 7 images but y_train has 12 labels"),
    ({"x_test": GREY[:5, :, :7]}, r"x_train has images of \(1, 8, 10\) uint8, but x_test of \(1, 8, 7\) uint8"),
    ({"x_test": GREY[:5] / 255}, r"x_train has images of \(1, 8, 10\) uint8, but x_test of \(1, 8, 10\) float32"),
    ({"y_train": LABELS / 2}, "y_train has shape .* and dtype float64; labels are whole numbers"),
    ({"y_train": np.eye(3)[LABELS].astype(int)}, r"y_train has shape \(12, 3\)"),
    ({"y_train": LABELS - 1}, "y_train has the label -1; labels run from 0"),
    ({"y_train": LABELS + 10**9}, "y_train has the label 1000000002"),
    ({"y_test": LABELS[:5] + 1}, "y_test has the label 3, but y_train goes up to 2 only"),
    ({"x_train": np.array([{"a": 1}], dtype=object)}, "cannot read x_train: it is no .npz archive of plain arrays"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_misshapen_file_is_one_line_naming_file_and_array(path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(save(path, **changes))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_one_line(path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_dataset(str(path))


def test_a_file_that_is_no_archive_is_one_line(path: Path) -> None:
    for content in (b"", b"not a zip", b"PK\x03\x04 but then nothing", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"mine.npz: cannot read"):
            load_dataset(str(path))
    with path.open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="archive but a single array"):
        load_dataset(str(path))


def test_no_truncation_and_no_flipped_byte_gives_anything_but_a_data_set_or_one_line(path: Path) -> None:
    save(path)
    good = path.read_bytes()
    for number in range(300):
        damaged = bytearray(good)
        damaged[RNG.integers(len(good))] ^= 1 << RNG.integers(8)
        bad = path.with_name(f"{number}.npz")
        bad.write_bytes(damaged if number % 2 else good[: RNG.integers(len(good))])
        try:
            load_dataset(str(bad))
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 (some flips hit a name or a time stamp, and are harmless)
