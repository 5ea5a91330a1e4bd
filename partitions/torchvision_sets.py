"""MNIST, Fashion-MNIST and CIFAR by torchvision: read from `data_dir`, and downloaded into it if absent."""

import contextlib
import io
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedsparse.partitions.dataset import DataError
from fedsparse.partitions.downloads import allowed
from fedsparse.partitions.images import Images

TIMEOUT_SECONDS = 30.0  # urllib waits for ever by default, for instance behind a firewall that drops packets


@dataclass(frozen=True)
class Source:
    """torchvision's class and folder of a data set, with the usual mean, deviation (of pixels in [0, 1]) and
    augmentation."""

    torchvision_class: str
    folder: str
    mebibytes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int = 0
    flip: bool = False


SOURCES = {
    "mnist": Source("MNIST", "MNIST/raw", 11, (0.1307,), (0.3081,), crop=2),
    "fashion-mnist": Source("FashionMNIST", "FashionMNIST/raw", 30, (0.2860,), (0.3530,), crop=2, flip=True),
    "cifar10": Source(
        "CIFAR10", "cifar-10-batches-py", 163, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), crop=4, flip=True
    ),
    "cifar100": Source(
        "CIFAR100", "cifar-100-python", 161, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), crop=4, flip=True
    ),
}


def load(name: str, data_dir: Path) -> Images:
    """The data set `name` of SOURCES, in torchvision's folder under `data_dir`; downloaded only if it is absent.

    Raises:
        DataError: the data set is absent and cannot be downloaded, or its files are damaged.
    """
    source = SOURCES[name]
    train, test = _read(name, source, data_dir, train=True), _read(name, source, data_dir, train=False)
    class_names = tuple(label.split(" - ")[0] for label in train.classes)  # MNIST's are like "0 - zero"
    return Images(
        classes=len(class_names),
        class_names=class_names,
        x_train=_images(train),
        y_train=torch.as_tensor(train.targets, dtype=torch.int64),
        x_test=_images(test),
        y_test=torch.as_tensor(test.targets, dtype=torch.int64),
        mean=torch.tensor(source.mean) * 255,
        std=torch.tensor(source.std) * 255,
        crop=source.crop,
        flip=source.flip,
    )


mnist = partial(load, "mnist")
fashion_mnist = partial(load, "fashion-mnist")
cifar10 = partial(load, "cifar10")
cifar100 = partial(load, "cifar100")


def _images(split: Any) -> Tensor:
    """(N, C, H, W) uint8 of torchvision's (N, H, W) tensor or (N, H, W, C) array."""
    images = torch.as_tensor(split.data)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


def _read(name: str, source: Source, data_dir: Path, *, train: bool) -> Any:
    from torchvision import datasets  # imported here, because the import takes a second

    torchvision_class = getattr(datasets, source.torchvision_class)
    place = data_dir / source.folder
    try:
        return torchvision_class(data_dir, train=train, download=False)
    except Exception as error:  # torchvision raises many types of error for damaged files
        if not (isinstance(error, RuntimeError) and "download=True" in str(error)):
            raise DataError(f"{name}: the files in {place} are damaged; delete that folder and run again") from error
    if not allowed():
        raise DataError(f"{name}: not found in {place}")
    print(f"downloading {name} ({source.mebibytes} MiB) into {data_dir}", file=sys.stderr)
    try:
        with _quiet_download():
            return torchvision_class(data_dir, train=train, download=True)
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise DataError(
            f"{name}: not found in {place}, and the download failed ({_first_line(error)}); connect to the network, "
            "or copy the files there, or use --dataset fashion-mnist-mini, which needs no download"
        ) from error


def _first_line(error: BaseException) -> str:
    """The line of an error that gives the reason, because torchvision's messages have several lines that repeat it."""
    lines = [line for line in str(error).splitlines() if "urlopen error" in line] or str(error).splitlines()
    return lines[0].strip("<> ") if lines else type(error).__name__


@contextlib.contextmanager
def _quiet_download() -> Iterator[None]:
    """A context that hides torchvision's progress bars, and ends a dead connection with an error."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
