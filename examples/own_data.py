"""Your own data set with natural clients: the data set says which client holds each sample.

    python main.py --dataset examples/own_data.py:load --distribution natural --clients 20 --model mlp-small

``load`` is called with --data-dir as a Path. It returns the same arrays as an .npz file would have: images of any size,
uint8 or floating point, whole-number labels from 0, and, for natural clients, the client of each training sample.
"""

from pathlib import Path

import numpy as np

CLIENTS, SAMPLES, SIDE = 20, 2000, 16


def load(data_dir: Path) -> dict[str, np.ndarray]:
    """Images of bars at four angles in noise; each client's images have their own brightness."""
    rng = np.random.default_rng(0)
    clients = rng.integers(0, CLIENTS, SAMPLES)
    brightness = rng.uniform(0.3, 1.0, CLIENTS)
    x_train, y_train = bars(rng, SAMPLES)
    x_test, y_test = bars(rng, 400)
    x_train *= brightness[clients][:, None, None]
    arrays = {"x_train": x_train.astype(np.float32), "y_train": y_train, "clients": clients}
    return arrays | {"x_test": x_test.astype(np.float32), "y_test": y_test}


def bars(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 4, samples)
    angle = labels * np.pi / 4 + rng.normal(0, 0.1, samples)
    row, column = np.indices((SIDE, SIDE)) - SIDE / 2
    distance = np.abs(row * np.cos(angle)[:, None, None] + column * np.sin(angle)[:, None, None])
    return (distance < 1.5) + rng.normal(0, 0.3, (samples, SIDE, SIDE)), labels
