"""Language models: sizes, shapes, what a token may see, and GPT-2 against another implementation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedsparse.errors import ConfigError
from fedsparse.models import build_model, model_for
from fedsparse.models.gpt2 import GPT2
from fedsparse.models.speed import recompute_blocks
from fedsparse.vector import Layout

TOKENS = torch.randint(0, 60, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["lstm", "gpt2-nano"])
def test_a_token_is_predicted_from_the_tokens_before_it_alone_and_every_weight_learns(name: str) -> None:
    model = build_model(name, (12,), 60, "batch", seed=0)
    other = TOKENS.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 60
    scores, changed = model(TOKENS), model(other)
    assert scores.shape == (2, 12, 60)
    torch.testing.assert_close(scores[:, :7], changed[:, :7])
    assert (scores[:, 7:] - changed[:, 7:]).abs().amax((0, 2)).min() > 0
    scores.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "vocabulary", "published"),
    [
        ("gpt2-small", 50257, 124_439_808),  # Hugging Face's gpt2
        ("gpt2-medium", 50257, 354_823_168),
        ("lstm-small", 10000, 2_650_000),  # Press and Wolf 2017, tables 3 and 4
        ("lstm-large", 10000, 51_000_000),
    ],
)
def test_a_model_has_the_published_number_of_weights(name: str, vocabulary: int, published: int) -> None:
    with torch.device("meta"):
        weights = Layout.of(build_model(name, (64,), vocabulary, "batch", seed=0)).parameters
    assert weights == published if name.startswith("gpt2") else weights == pytest.approx(published, rel=2e-3)


def test_the_small_gpt_has_at_most_a_million_weights_and_its_token_table_is_one_entry() -> None:
    layout = Layout.of(build_model("gpt2-nano", (64,), 100, "batch", seed=0))
    assert layout.parameters < 1_000_000
    assert [entry.shape for entry in layout.entries if 100 in entry.shape] == [(100, 128)]


def test_gpt2_gives_the_logits_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=60, n_positions=16, n_embd=24, n_layer=3, n_head=4)
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.2)  # also biases, which are 0 at first
    ours = GPT2(60, 16, blocks=3, heads=4, units=24)
    state = theirs.transformer.state_dict()
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    ours.load_state_dict({key: value.T if key.endswith(transposed) else value for key, value in state.items()})
    with torch.no_grad():
        torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, atol=1e-5, rtol=1e-5)


def test_recomputing_gpt2_runs_each_block_twice_and_gives_the_same_gradients() -> None:
    gradients, runs = [], []
    for recompute in (False, True):
        model = build_model("gpt2-nano", (12,), 60, "batch", seed=0)
        if recompute:
            recompute_blocks(model)
        for block in model.h:
            block.mlp.c_fc.register_forward_hook(lambda *_, recompute=recompute: runs.append(recompute))
        model(TOKENS).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (runs.count(False), runs.count(True)) == (4, 8)
    torch.testing.assert_close(*gradients)


def test_the_initial_loss_of_gpt2_is_that_of_equal_chances() -> None:
    model = build_model("gpt2-nano", (12,), 60, "batch", seed=0)
    loss = F.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.roll(1, 1).flatten())
    assert loss.item() == pytest.approx(torch.tensor(60.0).log().item(), abs=0.1)


def test_auto_is_the_usual_model_of_the_data_and_a_wrong_kind_is_one_line() -> None:
    assert (model_for("auto", "images"), model_for("auto", "text")) == ("cnn-small", "gpt2-nano")
    with pytest.raises(ConfigError, match=r"^model = gpt2-nano: reads text, and the data is images; choose mlp, .*$"):
        model_for("gpt2-nano", "images")
    with pytest.raises(ConfigError, match=r"^model = cnn: reads images, and the data is text; choose lstm, .*$"):
        model_for("cnn", "text")
