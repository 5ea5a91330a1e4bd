"""A data set of one's own: a NumPy .npz file with x_train, y_train, x_test and y_test."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partitions.dataset import Dataset, channel_statistics
from partitions.errors import DataError

KEYS = ("x_train", "y_train", "x_test", "y_test")
LARGEST_LABEL = 65_535  # beyond this a label is a mistake, and a model with so many outputs would not fit


def load(path: Path) -> Dataset:
    """Reads and checks the file.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), with C 1 or 3, uint8 or floating point of any scale; labels
    are whole numbers from 0, (N,) or (N, 1). Mean and deviation come from `x_train`; augmentation crops by
    an eighth of the shorter side, and flips.

    Raises:
        DataError: the file is absent or damaged, or an array is not as above; the line names the array.
    """
    arrays = _read(path)
    try:
        x_train, x_test = (_images(key, arrays[key]) for key in ("x_train", "x_test"))
        y_train, y_test = (_labels(key, arrays[key]) for key in ("y_train", "y_test"))
        _check_together(x_train, y_train, x_test, y_test)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    classes = int(y_train.max()) + 1
    mean, std = channel_statistics(x_train)
    names = tuple(str(label) for label in range(classes))
    crop = min(x_train.shape[2:]) // 8
    return Dataset(path.stem, classes, names, x_train, y_train, x_test, y_test, mean, std, crop, flip=True)


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    key = "the file"
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: not an .npz archive but a single array")
        with archive:
            missing = [key for key in KEYS if key not in archive]
            if missing:
                raise DataError(f"{path}: no {', '.join(missing)} in it (it has {', '.join(archive) or 'nothing'})")
            arrays = {}
            for key in KEYS:
                arrays[key] = archive[key]
            return arrays
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "pickle" in reason:  # NumPy's word for both, with the advice to load it unsafely
            reason = "it is no .npz archive of plain arrays"
        raise DataError(f"{path}: cannot read {key}: {reason}") from error


def _images(key: str, array: NDArray[np.generic]) -> Tensor:
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{key} has dtype {array.dtype}; images are uint8 or floating point")
    if array.size == 0:
        raise DataError(f"{key} is empty, shape {array.shape}")
    array = _channels_first(key, array)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused below
        floats = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if not torch.isfinite(floats).all():
        bad = int((~torch.isfinite(floats)).flatten(1).any(1).nonzero()[0])
        raise DataError(f"{key} has NaN or infinite pixels, the first in image {bad}")
    return floats


def _channels_first(key: str, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Decided by which axis has 1 or 3 channels; where both have, guessing would be silent damage."""
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
        if first and last:
            raise DataError(f"{key} has shape {array.shape}: which axis holds the channels, the second or the last?")
        if first:
            return array
        if last:
            return array.transpose(0, 3, 1, 2)
    raise DataError(f"{key} has shape {array.shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3")


def _labels(key: str, array: NDArray[np.generic]) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:  # as Keras keeps CIFAR
        array = array[:, 0]
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{key} has shape {array.shape} and dtype {array.dtype}; labels are whole numbers, (N,)")
    if array.size and (array.min() < 0 or array.max() > LARGEST_LABEL):
        worst = array.min() if array.min() < 0 else array.max()
        raise DataError(f"{key} has the label {worst}; labels run from 0 to classes - 1")
    return torch.from_numpy(array.astype(np.int64))


def _check_together(x_train: Tensor, y_train: Tensor, x_test: Tensor, y_test: Tensor) -> None:
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise DataError(f"x_{split} has {len(x)} images but y_{split} has {len(y)} labels")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        train, test = (f"{tuple(x.shape[1:])} {x.dtype}".replace("torch.", "") for x in (x_train, x_test))
        raise DataError(f"x_train has images of {train}, but x_test of {test}")
    if y_test.max() > y_train.max():
        raise DataError(f"y_test has the label {int(y_test.max())}, but y_train goes up to {int(y_train.max())} only")
