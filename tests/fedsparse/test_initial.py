"""Initial weights from a file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedsparse.errors import ConfigError
from fedsparse.models.gpt2 import GPT2
from fedsparse.models.initial import load_weights


def small(vocabulary: int = 30) -> GPT2:
    torch.manual_seed(0)
    model = GPT2(vocabulary, 8, blocks=2, heads=2, units=8)
    for p in model.parameters():
        nn.init.normal_(p)
    return model


def published(model: GPT2) -> dict[str, Tensor]:
    """The weights as Hugging Face writes them: (inputs, outputs), with a prefix, a mask and the tied output layer."""
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    state = {f"transformer.{key}": v.T if key in linear else v for key, v in model.state_dict().items()}
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
    return state | {"transformer.h.0.attn.bias": mask, "lm_head.weight": model.wte.weight.detach()}


@pytest.mark.parametrize("form", ["model.pt", "pytorch_model.bin"])
def test_a_folder_with_weights_starts_a_model(tmp_path: Path, form: str) -> None:
    wanted, model = small(), GPT2(30, 8, blocks=2, heads=2, units=8)
    torch.save(wanted.state_dict() if form == "model.pt" else published(wanted), tmp_path / form)
    load_weights(model, tmp_path, "gpt2-nano")
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), model.parameters(), strict=True))


def test_a_folder_that_transformers_wrote_gives_its_logits(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=30, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    model, tokens = small(), torch.arange(16).view(2, 8)
    load_weights(model, tmp_path / "model.safetensors", "gpt2-nano")
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-5)


def test_weights_of_another_vocabulary_or_model_are_one_line(tmp_path: Path) -> None:
    torch.save(published(small()), tmp_path / "pytorch_model.bin")
    rows = r"'wte.weight' is \(30, 8\) there and \(31, 8\) here; tokenizer and seq-length decide how many rows .*$"
    with torch.device("meta"):
        other = small(31)
    with pytest.raises(ConfigError, match=rf"^init = \S+: is not of model = gpt2-nano: {rows}"):
        load_weights(other, tmp_path, "gpt2-nano")
    with pytest.raises(ConfigError, match=r"mine: 'weight' is nothing there and \(2, 2\) here; exits, .*$"):
        load_weights(nn.Linear(2, 2), tmp_path, "mine")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "there is no such file"),
        ({}, "has none of model.pt, model.safetensors, pytorch_model.bin"),
        ({"model.pt": b"no weights"}, "is not a file that torch.save wrote"),
        ({"model.safetensors": b"no weights"}, "cannot be read: "),
    ],
)
def test_a_folder_without_weights_and_a_damaged_file_are_one_line(
    tmp_path: Path, content: dict | None, line: str
) -> None:
    folder = tmp_path / ("gone" if content is None else "")
    if "model.safetensors" in (content or {}):
        pytest.importorskip("safetensors")
    for name, data in (content or {}).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=f"^init = {folder}: {line}[^\n]*$"):
        load_weights(small(), folder, "gpt2-nano")
