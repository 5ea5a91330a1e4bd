"""The network."""

from typing import Annotated, Literal

from fedsparse.catalogue import MODELS
from fedsparse.config.settings import OneOf, Settings


class ModelSettings(Settings):
    """The network."""

    model: Annotated[str, OneOf(MODELS)] = "cnn-small"
    """Network; its input shape and classes come from the data set."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation layers of the torchvision models."""
