"""The loss scale of training in float16, in which a gradient below 6e-8 vanishes and one above 65504 is infinite."""

import torch
from torch import Tensor

START = 2.0**10
"""The first scale. Gradients from 6e-11 to 64 survive it. The largest element in the first steps of the networks here
is 5, whereas PyTorch's own start, 2^16, loses a step to every element above 1."""
NEVER = 2**31 - 1
"""Steps after which the scale is doubled, which would lose another step to see whether it fits."""


class LossScale:
    """Multiplies the loss, divides the gradients, and skips a step whose gradients overflowed; then the scale halves.

    A client starts it anew in every round, so that its update does not depend on which process trains it.

    Args:
        device: of the model.
        enabled: whether the training is in float16; else nothing is scaled or skipped.

    Attributes:
        enabled: as given.
        skipped: int64, how many steps were skipped; on the device, so that no step waits for it.
    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.enabled, self.skipped = enabled, torch.zeros((), dtype=torch.int64, device=device)
        self._scaler = torch.amp.GradScaler(device.type, init_scale=START, growth_interval=NEVER, enabled=enabled)
        self._one = torch.ones((), device=device)
        self._scale = self._scaler.scale(self._one)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the scaled loss."""
        self._scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients, before anything looks at them."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, unless a gradient is infinite or NaN."""
        self._scaler.step(optimizer)
        self._scaler.update()
        if self.enabled:
            before, self._scale = self._scale, self._scaler.scale(self._one)
            self.skipped += self._scale < before
