"""Transformers for text with classifiers behind some of their blocks."""

import copy

import pytest
import torch

from fedsparse.models.exits import Exits, with_exits
from fedsparse.models.gpt2 import GPT2
from fedsparse.sparsity.depths import part_of
from fedsparse.tasks import Language
from fedsparse.training.early_exit import THRESHOLDS, copying, costs, early_exits, keys_and_values, leaving
from fedsparse.vector import FlatModel, Layout

WINDOW, UNITS, TOKENS, BLOCKS = 10, 16, 11, 4
random = torch.Generator().manual_seed(3)
TEXT = torch.randint(TOKENS, (6, WINDOW + 1), generator=random)


def plain() -> GPT2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = GPT2(TOKENS, WINDOW, BLOCKS, heads=2, units=UNITS)
        for p in model.parameters():
            p.data *= 12  # so that classifiers are sure of some tokens
    return model.eval()


def network(exits: int = 2) -> Exits:
    return with_exits(plain(), exits, (WINDOW,), TOKENS, seed=2)


def test_the_last_classifier_gives_what_the_network_gave_and_all_share_the_output_layer() -> None:
    with torch.no_grad():
        assert torch.equal(network(3).eval()(TEXT[:, :-1]), plain()(TEXT[:, :-1]))
        assert network(3).train()(TEXT[:, :-1]).shape == (4, 6, WINDOW, TOKENS)
    assert Layout.of(network(3)).parameters == Layout.of(plain()).parameters + 3 * 2 * UNITS
    assert len(network(3).state_dict()) == len(plain().state_dict()) + 3 * 2, "the table has one name"
    again = copy.deepcopy(network())
    again.stages[0].layers[0].wte.weight.data.zero_()
    assert not again.eval()(TEXT[:, :-1]).any(), "the last classifier is the table of the first layer"


def test_a_client_of_depth_1_trains_the_tables_and_the_first_blocks() -> None:
    layout = Layout.of(network())
    held = part_of(layout, 1).mask
    names = {e.name.removeprefix("stages.") for e in layout.entries if held[e.start]}
    assert {"0.layers.0.wte.weight", "0.layers.0.wpe.weight", "0.classifier.ln_f.weight"} <= names
    assert all(name.startswith("0.") for name in names)


@pytest.mark.parametrize("threshold", [0.3, 0.5])
@torch.no_grad()
def test_positions_that_leave_give_what_a_decoder_gives_that_reads_token_by_token(threshold: float) -> None:
    module, left = network().eval().double(), set[int]()
    found = copying(module, TEXT[:, :-1], threshold)
    at = leaving(found, threshold)
    for window in range(len(TEXT)):
        states = [torch.empty(0, UNITS, dtype=torch.float64) for _ in range(BLOCKS)]  # that each block has seen
        for place in range(WINDOW):
            x = module.stages[0].layers[0](TEXT[window : window + 1, : place + 1])[0, -1:]
            number, block = None, 0
            for stage_number, stage in enumerate(module.stages):
                for layer in [layer for layer in stage.layers if type(layer).__name__ == "Block"]:
                    states[block] = torch.cat([states[block], x])
                    x = x if number is not None else layer(states[block][None])[0, -1:]
                    block += 1
                scores = (stage.classifier or stage.layers[-1])(x[None])[0, 0]
                if number is None and (stage_number == 2 or scores.softmax(0).max() > threshold):
                    number, given = stage_number, scores
            assert number == at[window, place]
            torch.testing.assert_close(found[number, window, place], given, rtol=1e-8, atol=1e-8)
            left.add(number)
    assert len(left) > 1, "the test needs positions that leave at several classifiers"


def test_a_point_tells_the_perplexity_and_the_multiply_adds_of_a_position() -> None:
    model = FlatModel(network())
    task = Language(bytes_per_token=1.0)
    found = early_exits(model, lambda i: (TEXT[i, :-1], TEXT[i, 1:]), len(TEXT), task)["early-exits"]
    first, last = found[0], found[-1]
    assert [point["threshold"] for point in found] == list(THRESHOLDS)
    block = 12 * UNITS**2 + 2 * WINDOW * UNITS  # its layers; and each position with all others, twice
    behind, output = 2 * UNITS**2, TOKENS * UNITS  # keys and values of a block
    assert first["multiply_adds"] == pytest.approx(2 * block + output + 2 * behind)
    assert last["multiply_adds"] == pytest.approx(4 * block + 3 * output)
    assert costs(model.module, TEXT[:1, :-1])[0] == WINDOW * (2 * block + output)
    assert keys_and_values(model.module, TEXT[:1, :-1]).tolist() == [2 * WINDOW * behind, WINDOW * behind, 0]
    for point, classifier in ((first, 0), (last, 2)):
        with torch.no_grad():
            loss = task.loss(model.module.every(TEXT[:, :-1], 3)[classifier], TEXT[:, 1:])
        assert point["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-4)
