"""The network."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fedsparse.catalogue import MODELS
from fedsparse.client_models import shares_of
from fedsparse.config.settings import OneOf, Settings, SomeOf


@dataclass(frozen=True)
class SharesOf(SomeOf):
    """Marks a text field of such names, each perhaps with its share of the clients, as NAME:SHARE."""

    def _check(self, names: str) -> str:
        super()._check(",".join(shares_of(names)))
        return names.replace(" ", "")


class ModelSettings(Settings):
    """The network."""

    model: Annotated[str, OneOf(("auto", *MODELS))] = "auto"
    """Network; its input shape and classes come from the data set. auto: the first of client-models, else cnn-small for
    images, gpt2-nano for text."""
    client_models: Annotated[str, SharesOf(MODELS)] = ""
    """Networks of several sizes: each client holds one of these for the whole run, drawn by the shares in NAME:SHARE,
    NAME:SHARE; a share of 1 may be left out. The server averages each size alone; with distill = ensemble all sizes
    learn from all clients (FedDF). model is the one that results are about. Empty: all clients hold model."""
    init: str = ""
    """Start from the weights of this file or folder: an earlier run's, or GPT-2's from Hugging Face."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation layers of the torchvision models."""
