"""A partition on disk, so that two frameworks can share it: CSV, `sample,client`, one line a training sample."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from fedsparse.partitions.dataset import DataError, reason
from fedsparse.partitions.split import Ints, OwnersFunction, Partition, as_given

HEADER = "sample,client"
ROW = re.compile(r"(\d{1,18}),(\d{1,18})")  # a number of 18 digits fits into int64


def write(path: Path, partition: Partition) -> None:
    """Writes the partition, held samples in ascending order; sample i is the i-th of the training set, from 0.

    Raises:
        OSError: the file cannot be written.
    """
    rows = (f"{sample},{client}\n" for sample, client in enumerate(partition.owners.tolist()) if client >= 0)
    path.write_text(f"{HEADER}\n{''.join(rows)}", encoding="ascii", newline="\n")


def owners_from(path: Path) -> OwnersFunction:
    """The distribution that the file holds: a function for `partition`, which reads and checks the file when called.

    The function raises:
        DataError: the file is absent, a line is not two whole numbers, or a sample is unknown, repeated or missing; the
            message names the line of the file.
    """
    return as_given(partial(_owners, path))


def _owners(path: Path, labels: Ints, clients: int, rng: np.random.Generator) -> Ints:
    try:
        header, *rows = path.read_text(encoding="utf-8-sig").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the partition: {reason(error)}") from error
    if header != HEADER:
        raise DataError(f"{path}, line 1: the header should be {HEADER}, not {header[:40]!r}")
    samples = len(labels)
    owners = np.full(samples, -1)
    for number, row in enumerate(rows, start=2):
        match = ROW.fullmatch(row)
        if not match:
            raise DataError(f"{path}, line {number}: should be two whole numbers, {HEADER}, not {row[:40]!r}")
        sample, client = map(int, match.groups())
        if sample >= samples:
            raise DataError(f"{path}, line {number}: sample {sample}, but the data set has 0 to {samples - 1}")
        if owners[sample] >= 0:
            raise DataError(f"{path}, line {number}: sample {sample} a second time")
        owners[sample] = client
    if (missing := np.flatnonzero(owners < 0)).size:
        raise DataError(f"{path}: {missing.size} of {samples} training samples are missing, the first is {missing[0]}")
    return owners
