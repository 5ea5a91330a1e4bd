"""The model, a perceptron of scikit-learn's, and its data: handwritten digits of 8 x 8."""

from functools import cache

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

Arrays = list[np.ndarray]


@cache
def images() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x / 16, y


def data(partition: int, partitions: int) -> tuple[np.ndarray, np.ndarray]:
    """This client's share of the first 1,500 images."""
    x, y = images()
    return x[:1500][partition::partitions], y[:1500][partition::partitions]


def model(hidden: int, arrays: Arrays | None = None) -> MLPClassifier:
    """A model with these weights, float64, or with new ones."""
    x, y = images()
    made = MLPClassifier((hidden,), solver="sgd", learning_rate_init=0.05, momentum=0.9, random_state=0)
    made.partial_fit(x[:10], y[:10], classes=range(10))  # makes the arrays
    if arrays:
        made.coefs_, made.intercepts_ = [a.copy() for a in arrays[:2]], [a.copy() for a in arrays[2:]]
    return made


def arrays_of(made: MLPClassifier) -> Arrays:
    return [*made.coefs_, *made.intercepts_]


def accuracy(made: MLPClassifier) -> float:
    x, y = images()
    return float(made.score(x[1500:], y[1500:]))
