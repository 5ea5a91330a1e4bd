"""A user's own data set in a NumPy .npz file, with the arrays that `as_dataset` names."""

from pathlib import Path

import numpy as np

from fedsparse.partitions.dataset import DataError, Dataset, reason
from fedsparse.partitions.from_arrays import as_dataset


def load_npz(path: Path) -> Dataset:
    """Reads and checks the file.

    Raises:
        DataError: the file is absent or damaged, or an array is not as `as_dataset` asks; the line names the array.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        archive = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises many types of error for damaged files
        why = "it is no .npz archive" if "pickle" in str(error) else reason(error)  # NumPy takes any text for a pickle
        raise DataError(f"{path}: cannot read the file: {why}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: not an .npz archive but a single array")
    with archive:
        return as_dataset(archive, str(path))
