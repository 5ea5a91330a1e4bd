"""A folder of images as a data set, and the one-line error for a folder that is no data set."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedsparse.partitions import DataError, load_folder

RNG = np.random.default_rng(0)


def pixels(channels: int = 1, height: int = 8, width: int = 10) -> np.ndarray:
    """(H, W) grey or (H, W, 3)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(file: Path, image: np.ndarray | Image.Image) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid folder: cats and dogs, four grey images."""
    for name in ("train/cat/a.png", "train/cat/b.png", "train/dog/c.png", "test/dog/d.png"):
        save(tmp_path / name, pixels())
    return tmp_path


@given(
    channels=st.sampled_from([1, 3]),
    suffix=st.sampled_from([".png", ".bmp", ".PNG"]),
    classes=st.dictionaries(
        st.text("abcXYZ 019", min_size=1, max_size=4).map(str.strip).filter(bool),
        st.integers(1, 3),
        min_size=1,
        max_size=4,
    ),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_images_and_labels_come_in_the_sorted_order_of_the_folders(
    tmp_path_factory: pytest.TempPathFactory,
    channels: int,
    suffix: str,
    classes: dict[str, int],
    height: int,
    width: int,
) -> None:
    folder = tmp_path_factory.mktemp("images")
    saved: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for label, (name, count) in enumerate(sorted(classes.items())):
        for split, files in (("train", count), ("test", count % 2)):
            for number in range(files):
                saved[split].append(pixels(channels, height, width))
                labels[split].append(label)
                save(folder / split / name / f"{number}{suffix}", saved[split][-1])
    if not labels["test"]:
        first = min(classes)
        saved["test"], labels["test"] = [pixels(channels, height, width)], [0]
        save(folder / "test" / first / f"x{suffix}", saved["test"][0])
    data = load_folder(folder)
    assert data.class_names == tuple(sorted(classes))
    assert data.classes == len(classes)
    for split, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        expected = np.stack(saved[split]).reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        assert x.dtype == torch.uint8
        assert np.array_equal(x.numpy(), expected)
        assert y.dtype == torch.int64
        assert y.tolist() == labels[split]


def test_a_folders_mean_deviation_and_augmentation_follow_the_rule_for_own_data(folder: Path) -> None:
    data = load_folder(folder)
    np.testing.assert_allclose(data.mean, [data.x_train.double().mean()], rtol=1e-5)
    np.testing.assert_allclose(data.std, [data.x_train.double().std(correction=0)], rtol=1e-5)
    assert (data.crop, data.flip, data.owners, data.task) == (1, True, None, "classify")


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_photographs_are_read(folder: Path, suffix: str) -> None:
    save(folder / f"train/cat/photo{suffix}", np.full((8, 10), 200, np.uint8))
    data = load_folder(folder)
    assert len(data.x_train) == 4
    assert (data.x_train[2].float() - 200).abs().max() <= 2


def test_black_and_white_images_are_grey_and_palettes_are_colours(tmp_path: Path) -> None:
    grey, colour = (pixels() > 127).astype(np.uint8) * 255, np.zeros((8, 10, 3), np.uint8)
    colour[:4] = 10, 20, 30
    for split in ("train", "test"):
        save(tmp_path / "bilevel" / split / "a/x.png", Image.fromarray(grey).convert("1"))
        save(tmp_path / "palette" / split / "a/x.png", Image.fromarray(colour).quantize(4))
    assert np.array_equal(load_folder(tmp_path / "bilevel").x_train[0, 0].numpy(), grey)
    assert np.array_equal(load_folder(tmp_path / "palette").x_train[0].numpy(), colour.transpose(2, 0, 1))


def test_other_files_and_hidden_ones_are_left_out(folder: Path) -> None:
    for name in ("train/notes.txt", "train/cat/notes.txt", "train/cat/._a.png", "train/.cache/x.png", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    assert load_folder(folder).y_train.tolist() == [0, 0, 1]


def line(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_without_one_of_the_two_splits_is_one_line(folder: Path, split: str) -> None:
    (folder / split).rename(folder / "other")
    assert line(folder).startswith(f"{folder / split}: no such folder; images are kept as train/<class>/*.png and")
    (folder / split).mkdir()
    assert line(folder) == f"{folder / split}: no folders in it, one a class"


def test_a_class_without_images_is_one_line(folder: Path) -> None:
    (folder / "train/eel").mkdir()
    (folder / "train/eel/image.gif").write_bytes(b"")
    assert line(folder) == f"{folder / 'train/eel'}: no images in it (.png, .jpg, .jpeg, .bmp)"


def test_a_class_without_training_images_is_one_line(folder: Path) -> None:
    save(folder / "test/eel/e.png", pixels())
    assert line(folder) == f"{folder / 'test/eel'}: there is no class of this name in {folder / 'train'}"


def test_an_image_that_differs_from_the_first_is_named(folder: Path) -> None:
    first = folder / "train/cat/a.png"
    for name, image, kind in (
        ("test/dog/e.png", pixels(height=9), "10x9 grey"),
        ("train/dog/d.png", pixels(width=7), "7x8 grey"),
        ("train/dog/b.png", pixels(channels=3), "10x8 RGB"),
    ):
        other = save(folder / name, image)
        assert line(folder) == f"{other} is {kind}, but {first} is 10x8 grey"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "CMYK"])
def test_images_with_other_channels_are_one_line(folder: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    file = save(folder / f"train/cat/c.{suffix}", Image.new(mode, (10, 8)))
    assert line(folder) == f"{file}: Pillow calls its mode {mode}; images are grey or RGB, 8 bits a channel"


def test_no_damage_to_an_image_gives_anything_but_a_data_set_or_one_line(folder: Path) -> None:
    file = folder / "train/dog/c.png"
    good = file.read_bytes()
    for content in (b"", b"no image", good[:20], good[:-30]):
        file.write_bytes(content)
        assert line(folder).startswith(f"{file}: damaged, or not an image (")
    bitmap = save(folder / "train/dog/c.bmp", pixels())
    content = bitmap.read_bytes()
    bitmap.write_bytes(content[:18] + struct.pack("<ii", 100_000, 100_000) + content[26:])  # its width and height
    file.write_bytes(good)
    assert line(folder).startswith(f"{bitmap}: damaged, or not an image (")
    bitmap.unlink()
    for name in ("c.png", "c.jpg", "c.bmp"):
        file.unlink()
        file = save(folder / "train/dog" / name, pixels())
        good = file.read_bytes()
        for _ in range(60):
            damaged = bytearray(good)
            damaged[RNG.integers(len(good))] ^= 1 << RNG.integers(8)
            file.write_bytes(damaged)
            try:
                load_folder(folder)
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017 (some flips change no more than a pixel)
