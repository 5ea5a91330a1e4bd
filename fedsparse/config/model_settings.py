"""The network."""

from typing import Annotated, Literal

from fedsparse.catalogue import MODELS
from fedsparse.config.settings import OneOf, Settings


class ModelSettings(Settings):
    """The network."""

    model: Annotated[str, OneOf(("auto", *MODELS))] = "auto"
    """Network; its input shape and classes come from the data set. auto: cnn-small for images, gpt2-nano for text."""
    init: str = ""
    """Start from the weights of this file or folder: an earlier run's, or GPT-2's from Hugging Face."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation layers of the torchvision models."""
