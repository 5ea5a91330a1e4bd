"""A topology during one client's local training."""

import torch
from torch import Generator, Tensor

from fedsparse.sparsity.method import TopologyMethod
from fedsparse.sparsity.set import random_scores
from fedsparse.sparsity.sparsyfed import from_weights, gradient_of_psi, to_weights
from fedsparse.sparsity.topology import Layer, Topology
from fedsparse.vector import FlatModel


class LocalTopology:
    """Keeps what does not exist at exactly 0, and readjusts in the middle of the training.

    Gradients are masked rather than weights: then momentum, weight decay, clipping and a proximal term, too, see only
    what exists, and a weight that starts at 0 stays there.

    Args:
        model: holds weights under ``topology``.
        topology: of the server, on the model's device.
        method: says whether and how a client readjusts.
        round: the server's round.
        seed: for growth at random.

    Attributes:
        topology: the present one.
    """

    def __init__(self, model: FlatModel, topology: Topology, method: TopologyMethod, round: int, seed: int) -> None:
        self.model, self.topology, self.method, self.round, self.seed = model, topology, method, round, seed
        self._readjusts = method.clients_choose and method.is_readjustment(round)
        self._average: Tensor | None = None

    def begin(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        """Called before the first of ``steps`` optimizer steps."""
        self.optimizer, self._steps_to_go = optimizer, steps // 2
        self.parameters = [p for p in self.model.module.parameters() if p.requires_grad]
        self._follow_topology()

    def _follow_topology(self) -> None:
        """Find the weights that are masked, with their masks as numbers, and those that are re-parameterised."""
        prunable = {layer.name: count < layer.size for layer, count in self._prunable()}
        views = self.model.views(self.topology.mask)
        layers = list(zip(self.parameters, self.model.layout.layers, views, strict=True))
        self._masked = [(p, mask.to(p.dtype)) for p, entry, mask in layers if prunable.get(entry.name)]
        self._powered = [p for p, entry, _ in layers if entry.name in prunable] if self.method.alpha != 1.0 else []

    def _prunable(self) -> list[tuple[Layer, int]]:
        pairs = zip(self.topology.layers, self.topology.counts, strict=True)
        return [(layer, count) for layer, count in pairs if not layer.dense]

    @torch.no_grad()
    def before_step(self) -> None:
        """Called when the gradients are there, still dense, and before they are clipped."""
        if self._readjusts and self._steps_to_go >= 0:
            self._readjust_when_due()
        if self._masked:
            gradients, masks = zip(*((p.grad, mask) for p, mask in self._masked), strict=True)
            torch._foreach_mul_(gradients, masks)
        for p in self._powered:
            psi = from_weights(p, self.method.alpha)
            p.grad = gradient_of_psi(p.grad, psi, self.method.alpha)  # type: ignore[arg-type]
            p.copy_(psi)

    @torch.no_grad()
    def after_step(self) -> None:
        """Called after the optimizer's step."""
        for p in self._powered:
            p.copy_(to_weights(p, self.method.alpha))

    def _readjust_when_due(self) -> None:
        if self.method.growth == "momentum":
            gradient, beta = flat_gradient(self.parameters), self.method.momentum
            self._average = gradient if self._average is None else beta * self._average + (1 - beta) * gradient
        if self._steps_to_go == 0:
            if self.method.growth == "random":
                signal = random_scores(self.topology, Generator().manual_seed(self.seed))
            else:
                signal = flat_gradient(self.parameters) if self._average is None else self._average
            weights = self.model.vector[: self.model.layout.parameters]
            self._change(self.method.readjust_locally(self.topology, weights, signal, self.round))
        self._steps_to_go -= 1

    def _change(self, new: Topology) -> None:
        """Go on under ``new``: what it lacks becomes 0, and the optimizer forgets every weight that changed."""
        changed = self.model.views(new.mask ^ self.topology.mask)
        for p, at in zip(self.parameters, changed, strict=True):
            for state in self.optimizer.state.get(p, {}).values():
                if isinstance(state, Tensor) and state.shape == p.shape:
                    state.masked_fill_(at, 0)
        new.apply_(self.model.vector)
        self.topology = new
        self._follow_topology()


def flat_gradient(parameters: list[torch.nn.Parameter]) -> Tensor:
    """The gradients of all parameters, in layout order: shape ``(layout.parameters,)``."""
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
