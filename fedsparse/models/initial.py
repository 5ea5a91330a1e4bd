"""Weights from a file: an earlier run's ``model.pt``, or GPT-2 as Hugging Face publishes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedsparse.errors import ConfigError

VOCABULARY = "vocabulary.sha256"
"""Beside the ``model.pt`` of a run on text: the fingerprint of the vocabulary."""
FILES = ("model.pt", "model.safetensors", "pytorch_model.bin")
"""What is looked for in a folder: that of a run, or one from Hugging Face."""


def load_weights(
    module: nn.Module, path: Path, name: str, setting: str = "init", vocabulary: str = "",
    prepare: Callable[[dict[str, Tensor], nn.Module], object] | None = None,
) -> None:  # fmt: skip
    """Load a state dict into ``module``, in place.

    A part of ``module`` that stands for a layer may have a method ``take_dense(state, name)``, which replaces what the
    state has of that layer by what the part has.

    Args:
        module: on the meta device it stays as it is, and the file is only checked.
        path: a file, or a folder with one of ``FILES``.
        name: of the model, for messages.
        setting: that named the path, for messages.
        vocabulary: ``Dataset.vocabulary``; compared with the one beside the file, if both are there.
        prepare: changes the state dict in place, to fit the module.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is of another model or vocabulary; one line.
    """
    given = f"{setting} = {path}"
    state, own = _published_names(read_state(path, given)), module.state_dict()
    for key in state:
        if not torch.isfinite(state[key]).all():
            raise ConfigError(f"{given}: {key!r} has NaN or infinity")
    if prepare:
        prepare(state, module)
    for prefix, part in module.named_modules():
        if hasattr(part, "take_dense"):
            part.take_dense(state, prefix)
    tables = {f"{prefix}.weight" for prefix, part in module.named_modules() if isinstance(part, nn.Embedding)}
    for key in [*own, *state]:
        shapes = [tuple(tensors[key].shape) if key in tensors else "nothing" for tensors in (state, own)]
        if shapes[0] != shapes[1]:
            why = ""
            if "nothing" in shapes:
                why = "; exits, lora-rank, lowrank-layers and weight-bits give a network other weights"
            elif key in tables:
                why = "; tokenizer and seq-length decide how many rows a table has"
            told = f"{key!r} is {shapes[0]} there and {shapes[1]} here"
            raise ConfigError(f"{given}: is not of model = {name}: {told}{why}")
    beside = (path if path.is_dir() else path.parent) / VOCABULARY
    if vocabulary and beside.is_file() and beside.read_text(errors="replace").strip() != vocabulary:
        raise ConfigError(
            f"{given}: was trained with other tokens of the same number; tokenizer and training text decide the tokens "
            f"({beside} is their fingerprint)"
        )
    module.load_state_dict(state)


def read_state(path: Path, given: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        ConfigError: as :func:`load_weights`; ``given`` is what the line begins with.
    """
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()]
        if not found:
            raise ConfigError(f"{given}: has none of {', '.join(FILES)}")
        path = found[0]
    if not path.is_file():
        raise ConfigError(f"{given}: there is no such file")
    state: Any
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ModuleNotFoundError:
            raise ConfigError(f"{given}: needs the package safetensors: pip install safetensors") from None
        try:
            state = load_file(path)
        except Exception as error:  # its own exception is no subclass of any other
            raise ConfigError(f"{given}: cannot be read: {str(error).splitlines()[0]}") from None
        return dict(state)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # what a damaged file makes torch raise is of many types
        raise ConfigError(f"{given}: is not a file that torch.save wrote") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{given}: should be a state dict, as in a run's model.pt")
    return state


def _published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's weights from Hugging Face, under our names and in our shapes; other weights as they are.

    Its linear layers have shape (inputs, outputs), and beside the weights it has masks and the output layer, which is
    the token table.
    """
    first = state.get("transformer.h.0.mlp.c_fc.weight", state.get("h.0.mlp.c_fc.weight"))
    if first is None or first.dim() != 2 or first.shape[0] > first.shape[1]:
        return state
    ours = {}
    for key, value in state.items():
        key = key.removeprefix("transformer.")
        if key != "lm_head.weight" and not key.endswith((".attn.bias", ".attn.masked_bias")):
            is_linear = key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
            ours[key] = value.T.contiguous() if is_linear else value
    return ours
