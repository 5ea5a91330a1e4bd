"""Makes the result of a loader into a checked data set."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.partitions.dataset import DataError, Dataset, reason
from fedsparse.partitions.images import Images, from_images

KEYS = ("x_train", "y_train", "x_test", "y_test")
LARGEST_LABEL = 65_535  # a larger label is a mistake, and a model with so many outputs would not fit in memory

Array = NDArray[np.generic]


def as_dataset(loaded: Dataset | Mapping[str, Any], name: str) -> Dataset:
    """The data set that a loader returned, checked.

    A loader is a function `load(data_dir: Path)`. It returns a `Dataset`, or a mapping (a dict, an open .npz file) of
    arrays, tensors or lists:

        x_train, x_test   images, (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3, uint8, or floating point of any
                          scale
        y_train, y_test   labels, (N,) or (N, 1), whole numbers from 0
        clients           optional: the client of each training sample, (N_train,), any whole numbers
        class_names       optional: one string a class; by default the labels are the names

    A mapping becomes `Images` by `from_images`. Natural clients are renumbered from 0, in ascending order of the
    numbers given.

    Args:
        name: of the data set; every error begins with it.

    Raises:
        DataError: `loaded` is neither of the two, or an array in it is not as above; the line names the array.
    """
    try:
        if isinstance(loaded, Mapping):
            loaded = _from_arrays(loaded)
        if isinstance(loaded, Images):
            return _checked(loaded)
        if isinstance(loaded, Dataset):
            return loaded
        kind = type(loaded).__name__
        raise DataError(
            f"a loader returns a fedsparse.partitions.Dataset or a mapping with {', '.join(KEYS)}, not {kind}"
        )
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _from_arrays(loaded: Mapping[str, Any]) -> Images:
    missing = [key for key in KEYS if key not in loaded]
    if missing:
        raise DataError(f"no {', '.join(missing)} in it (it has {', '.join(map(str, loaded)) or 'nothing'})")
    x_train, x_test = (_images(key, _array(loaded, key)) for key in ("x_train", "x_test"))
    y_train, y_test = (_labels(key, _array(loaded, key)) for key in ("y_train", "y_test"))
    owners = _owners("clients", _array(loaded, "clients"), len(y_train)) if "clients" in loaded else None
    if "class_names" in loaded:
        class_names = _class_names(_array(loaded, "class_names"))
    else:
        class_names = tuple(str(label) for label in range(int(y_train.max()) + 1))
    return from_images(class_names, x_train, y_train, x_test, y_test, owners)


def _array(loaded: Mapping[str, Any], key: str) -> Array:
    try:
        value = loaded[key]  # an .npz archive is read here, one array at a time
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except Exception as error:  # damaged archives and rows of unequal lengths raise many types of error
        raise DataError(f"cannot read {key}: {reason(error)}") from error
    if array.size == 0:
        raise DataError(f"{key} is empty, shape {array.shape}")
    return array


def _images(key: str, array: Array) -> Tensor:
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{key} has dtype {array.dtype}; images are uint8 or floating point")
    dtype = np.uint8 if array.dtype == np.uint8 else np.float32
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused below
        images = torch.from_numpy(np.require(_channels_first(key, array), dtype, ["C", "W"]))
    if images.is_floating_point() and not images.isfinite().all():
        bad = int((~images.isfinite()).flatten(1).any(1).nonzero()[0])
        raise DataError(f"{key} has NaN or infinite pixels, the first in image {bad}")
    return images


def _channels_first(key: str, array: Array) -> Array:
    """(N, C, H, W). The axis of length 1 or 3 has the channels; two such axes are refused, not guessed."""
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


def _labels(key: str, array: Array) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:  # Keras gives CIFAR's labels in this shape
        array = array[:, 0]
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{key} has shape {array.shape} and dtype {array.dtype}; labels are whole numbers, (N,)")
    if array.min() < 0 or array.max() > LARGEST_LABEL:
        worst = array.min() if array.min() < 0 else array.max()
        raise DataError(f"{key} has the label {worst}; labels run from 0 to classes - 1")
    return torch.from_numpy(array.astype(np.int64))


def _owners(key: str, array: Array, samples: int) -> NDArray[np.int64]:
    if array.shape != (samples,) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{key} has shape {array.shape} and dtype {array.dtype}; "
            f"it says of each of the {samples} training samples who holds it, in whole numbers"
        )
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _class_names(array: Array) -> tuple[str, ...]:
    names = array.tolist()
    if array.ndim != 1 or not all(isinstance(name, str) for name in names):
        raise DataError(f"class_names has shape {array.shape} and dtype {array.dtype}; it is a list of strings")
    return tuple(names)


def _checked(data: Images) -> Images:
    """The data set, if its tensors fit together. Their shapes are hardly checked, because they depend on the task."""
    for key in (*KEYS, "mean", "std"):
        if not isinstance(getattr(data, key), Tensor):
            raise DataError(f"{key} is of type {type(getattr(data, key)).__name__}, not a tensor")
    if len(data.class_names) != data.classes:
        raise DataError(f"class_names has {len(data.class_names)} names, but there are {data.classes} classes")
    for split, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        if len(x) != len(y) or not len(x):
            raise DataError(f"x_{split} has {len(x)} images but y_{split} has {len(y)} labels")
        if not y.is_floating_point() and (y.min() < 0 or y.max() >= data.classes):
            worst = int(y.min() if y.min() < 0 else y.max())
            raise DataError(f"y_{split} has the label {worst}, but the classes are 0 to {data.classes - 1}")
    if data.x_train.shape[1:] != data.x_test.shape[1:] or data.x_train.dtype != data.x_test.dtype:
        train, test = (f"{tuple(x.shape[1:])} {x.dtype}".replace("torch.", "") for x in (data.x_train, data.x_test))
        raise DataError(f"x_train has images of {train}, but x_test of {test}")
    if data.owners is None:
        return data
    return replace(data, owners=_owners("owners", np.asarray(data.owners), len(data.y_train)))
