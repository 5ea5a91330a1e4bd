"""Layers that are small in themselves: of low rank, with factors as parameters in place of the weights.

A network with such layers is a module like any other, so that training, compression and layouts need not know of them.
The ranks of a network are one number for each layer that can be factored; 0 stands for a layer that stays dense.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fedsparse.catalogue import LOWRANK_FORMS
from fedsparse.lowrank.factorable_layers import Dense
from fedsparse.lowrank.lora import LoRA
from fedsparse.lowrank.svd import LowRank, matrix_of, product_of
from fedsparse.plugins import named


def smaller_rank(form: str, layer: Dense, asked: float) -> int:
    """The rank of a layer; 0 where its factors would have as many weights as the layer itself, or more.

    Args:
        asked: below 1 a share of the largest rank, from 1 on the rank itself.
    """
    made = named(LOWRANK_FORMS, form)
    largest = made.largest_rank(layer)
    rank = max(1, min(largest, round(asked * largest) if asked < 1 else round(asked)))
    return rank if made.size(layer, rank) < layer.weight.numel() else 0


def rank_of_energy(weight: Tensor, share: float, most: int, lost: float = 0.0) -> tuple[int, float]:
    """The smallest rank whose truncated SVD keeps a share of the energy, which is the squared norm.

    Args:
        share: of the energy of the weights and of what was lost before, so that losses do not add up.
        most: the largest rank, at least 1.
        lost: the energy that earlier truncations of these weights have cut off.

    Returns:
        The rank, and the energy that is lost with it.
    """
    energies = torch.linalg.svdvals(matrix_of(weight.detach())).double().square().cumsum(0)
    rank = min(most, 1 + int((energies < share * (energies[-1] + lost)).sum()))
    return rank, lost + float(energies[-1] - energies[rank - 1])


def factor_(model: nn.Module, ranks: Mapping[str, int], form: str, seed: int) -> nn.Module:
    """Replace the layers named in ``ranks`` by new ones of these ranks, at random; a rank of 0 changes nothing.

    Args:
        seed: of the new weights; torch's global random state does not change.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, rank in ranks.items():
            if rank:
                model.set_submodule(name, named(LOWRANK_FORMS, form)(model.get_submodule(name), rank))
    return model


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the network in which each product stands in place of its factors or adapter."""
    state = model.state_dict()
    for name, part in model.named_modules():
        if isinstance(part, LowRank | LoRA):
            part.give_dense(state, name)
    return state


def load_dense(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a ``dense_state`` into a network of other ranks; what is factored becomes the truncated SVD."""
    for name, part in model.named_modules():
        if isinstance(part, LowRank | LoRA):
            part.take_dense(state, name)
    model.load_state_dict(state)


def merge_others(state: dict[str, Tensor], model: nn.Module) -> None:
    """Put products in place of factors U diag(s) V^T in a state dict, in place, where those of ``model`` are others."""
    own = model.state_dict()
    for name in [key.removesuffix(".s") for key in state if key.endswith(".s")]:
        keys = [f"{name}.{part}" for part in ("up.weight", "s", "down.weight")]
        if all(key in state for key in keys) and any(
            key not in own or own[key].shape != state[key].shape for key in keys
        ):
            state[f"{name}.weight"] = product_of(*(state.pop(key) for key in keys))
            if f"{name}.up.bias" in state:
                state[f"{name}.bias"] = state.pop(f"{name}.up.bias")


def ranks_in(state: Mapping[str, Tensor], names: Iterable[str]) -> tuple[int, ...]:
    """The ranks of these layers in the state dict of a network with layers U diag(s) V^T."""
    return tuple(state[f"{name}.s"].numel() if f"{name}.s" in state else 0 for name in names)
