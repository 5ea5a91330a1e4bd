"""The ClientApp without training, so that a round measures the engine alone."""

from typing import Any

import torch

from fedsparse.clients import client_app as client
from fedsparse.training.evaluation import Score


def no_training(model: Any, fetch: Any, samples: int, *_: object, topology: Any, **__: object) -> Score:
    topology.begin(torch.optim.SGD(model.module.parameters()), 0)
    return Score(0.0, 0.0, samples)


client.train_model = no_training
app = client.app
