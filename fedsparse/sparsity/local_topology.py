"""A topology during one client's local training."""

import torch
from torch import Generator, Tensor, nn

from fedsparse.sparsity.method import TopologyMethod, checked
from fedsparse.sparsity.set import random_scores
from fedsparse.sparsity.topology import Topology
from fedsparse.vector import FlatModel


class LocalTopology:
    """Keeps the weights that do not exist at exactly 0, and readjusts in the middle of the training.

    It masks gradients instead of weights, so that momentum, weight decay, clipping and a proximal term see only the
    weights that exist, and a weight that starts at 0 stays 0.

    Args:
        model: holds weights under ``topology``.
        topology: the server's, on the model's device.
        method: says whether and how a client readjusts, and changes weights and gradients around an optimizer step.
        round: the server's round.
        seed: for growth at random.

    Attributes:
        topology: the client's present topology.
    """

    def __init__(self, model: FlatModel, topology: Topology, method: TopologyMethod, round: int, seed: int) -> None:
        self.model, self.topology, self.method, self.round, self.seed = model, topology, method, round, seed
        self._readjusts = method.clients_choose and method.is_readjustment(round)
        self._average: Tensor | None = None

    def begin(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        """The loop calls this before the first of ``steps`` optimizer steps."""
        self.optimizer, self._steps_to_go = optimizer, steps // 2
        self.parameters = [p for p in self.model.module.parameters() if p.requires_grad]
        names = [entry.name for entry in self.model.layout.trainable]
        self._by_name = dict(zip(names, self.parameters, strict=True))
        self._prunable = [self._by_name[layer.name] for layer in self.topology.layers if not layer.dense]
        self._make_masks()

    def end(self) -> None:
        """Forget what is needed only for training, to free what the optimizer and the masks hold."""
        del self.optimizer, self._masked, self._average

    def _make_masks(self) -> None:
        """Pair every parameter that lacks some weights with its mask of 0.0 and 1.0."""
        counts = zip(self.topology.layers, self.topology.counts, strict=True)
        sparse = [(self._by_name[layer.name], layer) for layer, count in counts if count < layer.size]
        self._masked = [(p, self.topology.mask[layer.slice].view(layer.shape).to(p.dtype)) for p, layer in sparse]

    @torch.no_grad()
    def before_step(self) -> None:
        """The loop calls this when the gradients are complete, dense, and not clipped yet."""
        if self._readjusts and self._steps_to_go >= 0:
            self._readjust_when_due()
        if self._masked:
            gradients, masks = zip(*((p.grad, mask) for p, mask in self._masked), strict=True)
            torch._foreach_mul_(gradients, masks)
        self.method.before_step(self._prunable)

    @torch.no_grad()
    def after_step(self) -> None:
        """The loop calls this after the optimizer's step."""
        self.method.after_step(self._prunable)

    def _readjust_when_due(self) -> None:
        if self.method.growth == "momentum":
            gradient, beta = flat_gradient(self.parameters), self.method.momentum
            self._average = gradient if self._average is None else beta * self._average + (1 - beta) * gradient
        if self._steps_to_go == 0:
            if self.method.growth == "random":
                signal = random_scores(self.topology, Generator().manual_seed(self.seed))
            else:
                signal = flat_gradient(self.parameters) if self._average is None else self._average
            parameters = self.model.layout.parameters
            new = self.method.readjust_locally(self.topology, self.model.vector[:parameters], signal, self.round)
            self._change(checked(new, self.topology.layers, parameters))
        self._steps_to_go -= 1

    def _change(self, new: Topology) -> None:
        """Change to the topology ``new``: removed weights become 0, and so does the optimizer state of changed ones."""
        changed = self.model.views(new.mask ^ self.topology.mask)
        for p, at in zip(self.parameters, changed, strict=True):
            for state in self.optimizer.state.get(p, {}).values():
                if isinstance(state, Tensor) and state.shape == p.shape:
                    state.masked_fill_(at, 0)
        new.apply_(self.model.vector)
        self.topology = new
        self._make_masks()


def flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """The gradients of all parameters, in layout order: shape ``(layout.parameters,)``."""
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
