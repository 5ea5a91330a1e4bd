import signal

import numpy as np
import pytest

from fedsparse.data import load_dataset


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of 200 images, as a file."""
    data, file = load_dataset(), tmp_path_factory.mktemp("data") / "tiny.npz"
    arrays = {name: getattr(data, name)[:200].squeeze().numpy() for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(file, **arrays)
    return str(file)


# A shell starts background jobs with SIGINT ignored, which children inherit; tests that send SIGINT need the default.
signal.signal(signal.SIGINT, signal.default_int_handler)
