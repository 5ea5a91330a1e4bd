"""A user's own data set as a folder of images: train/<class>/*.png and test/<class>/*.png, or .jpg, .jpeg, .bmp."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.partitions.dataset import DataError, reason
from fedsparse.partitions.images import Images, from_images

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MODES = {"L": "L", "1": "L", "RGB": "RGB", "P": "RGB"}  # Pillow's modes: black and white becomes grey, a palette RGB


def load_folder(path: Path) -> Images:
    """Reads and checks the folder; labels follow the sorted names of the folders in train/.

    All images are grey or all are RGB, and all have one size. Hidden files and files of other types are left out.

    Raises:
        DataError: a folder is absent or has no image, test/ has a class that train/ lacks, an image is damaged, or
            differs from the first one in size or channels; the line names the folder or the file.
    """
    train, test = (_files_by_class(path / split) for split in ("train", "test"))
    unknown = [name for name in test if name not in train]
    if unknown:
        raise DataError(f"{path / 'test' / unknown[0]}: there is no class of this name in {path / 'train'}")
    y_train, y_test = (
        torch.tensor([label for label, name in enumerate(train) for _ in split.get(name, ())])
        for split in (train, test)
    )
    images = _read([file for split in (train, test) for files in split.values() for file in files])
    return from_images(tuple(train), images[: len(y_train)], y_train, images[len(y_train) :], y_test)


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; images are kept as train/<class>/*.png and test/<class>/*.png")
    classes = [place for place in sorted(folder.iterdir()) if place.is_dir() and not place.name.startswith(".")]
    if not classes:
        raise DataError(f"{folder}: no folders in it, one a class")
    found = {}
    for place in classes:
        files = sorted(f for f in place.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if not files:
            raise DataError(f"{place}: no images in it ({', '.join(SUFFIXES)})")
        found[place.name] = files
    return found


def _read(files: list[Path]) -> Tensor:
    """(N, C, H, W) uint8."""
    first = _pixels(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for place, file in zip(images, files, strict=True):
        pixels = _pixels(file)
        if pixels.shape != first.shape:
            raise DataError(f"{file} is {_kind(pixels)}, but {files[0]} is {_kind(first)}")
        place[:] = pixels
    return torch.from_numpy(images)


def _kind(pixels: NDArray[np.uint8]) -> str:
    channels, height, width = pixels.shape
    return f"{width}x{height} {'RGB' if channels == 3 else 'grey'}"


def _pixels(file: Path) -> NDArray[np.uint8]:
    """(C, H, W) of one image."""
    from PIL import Image  # imported here, because no other data set needs it

    try:
        with Image.open(file) as image:
            mode = image.mode
            pixels: NDArray[Any] = np.asarray(image.convert(MODES.get(mode, mode)))
    except Exception as error:  # Pillow raises many types of error for damaged files
        raise DataError(f"{file}: damaged, or not an image ({reason(error)})") from error
    if mode not in MODES:
        raise DataError(f"{file}: Pillow calls its mode {mode}; images are grey or RGB, 8 bits a channel")
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
