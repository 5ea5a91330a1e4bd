"""A mistake in a user's own object is one line."""

from pathlib import Path

import pytest

from fedsparse.commands import main

BAD = """
import numpy as np
import torch
from torch import nn

def no_module(*_, **__): return 3

def raises(input_shape, classes): return {}['oh']

def two_pixels(input_shape, classes): return nn.Linear(2, classes)

def lacks(data_dir): return {'x_train': [[[1.0]]], 'y_train': [0], 'x_test': [[[1.0]]]}

def short(labels, clients, rng): return [0, 1]

def no_optimizer(parameters, lr): return 3

def seven(input_shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(784, 7))

def a_pair(input_shape, classes): return Pair()

class Pair(nn.Module):
    def forward(self, x): return x, x

class Fails(nn.Module):
    def __init__(self, input_shape, classes): super().__init__(); self.a = nn.Linear(2, 2)
    def forward(self, x): return self.b(x)

class NoStep:
    def __init__(self, config, parameters): pass
    def step(self, mean): return None
    def forget(self, stale): pass
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

class Unsorted:
    def indices(self, vector, parts, memory, seed): return [np.array([3, 1])]

class NoVotes:
    def __init__(self, size, mask): self.size = size
    def add(self, update, samples, mask=None): pass
    def result(self): return torch.zeros(self.size)

class NoResult:
    def __init__(self, size, mask): pass
    def add(self, update, samples, mask=None): pass
    def result(self): return None
"""
"""Each object has one fault."""


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--model", "nowhere.py:Net"], "model = {here}/nowhere.py:Net: there is no file {here}/nowhere.py"),
        (["--model", "nowhere.nothing:Net"], "model = nowhere.nothing:Net: there is no module 'nowhere'"),
        (["--model", "bad.py:Missing"], "model = {here}/bad.py:Missing: {here}/bad.py has no 'Missing'; it has"),
        (["--model", "broken.py:Net"], "model = {here}/broken.py:Net: ZeroDivisionError: division by zero (broken.py"),
        (["--model", "syntax.py:Net"], "model = {here}/syntax.py:Net: SyntaxError: "),
        (["--model", "bad.py:no_module"], "model = {here}/bad.py:no_module: should give a torch.nn.Module, not int"),
        (["--model", "bad.py:raises"], "model = {here}/bad.py:raises: KeyError: 'oh' (bad.py, line"),
        (["--model", "bad.py:two_pixels"], "model = {here}/bad.py:two_pixels: does not fit images of 1x28x28"),
        (["--dataset", "bad.py:no_module"], "bad.py:no_module"),
        (["--dataset", "bad.py:raises"], "dataset = {here}/bad.py:raises: TypeError: "),
        (["--dataset", "bad.py:lacks"], "y_test"),
        (["--distribution", "bad.py:lacks"], "distribution = {here}/bad.py:lacks: TypeError"),
        (["--distribution", "bad.py:short"], "it should be the client of each of the 10000 samples"),
        (["--distribution", "natural"], "does not say"),
        (["--compressor", "bad.py:no_module"], "compressor"),
        (["--compressor", "bad.py:Unsorted"], "indices should be sorted, distinct, and here from 0 to"),
        (["--model", "bad.py:seven"], "an output of shape (2, 7) does not fit the labels"),
        (["--model", "bad.py:a_pair"], "model = {here}/bad.py:a_pair: should return a tensor, not tuple"),
        (["--model", "bad.py:Fails"], "model = {here}/bad.py:Fails: AttributeError: "),
        (["--optimizer", "torch.optim:LBFGS"], "optimizer = torch.optim:LBFGS: TypeError"),
        (["--model", "torch.nn:Flatten"], "model = torch.nn:Flatten: has no weights to train"),
        (["--strategy", "bad.py:NoStep"], "step should return a tensor of shape"),
        (["--aggregator", "bad.py:NoVotes", "--sparsity", "0.5", "--need-readjust"], "has no votes, by which topology"),
        (["--optimizer", "bad.py:no_optimizer"], "should give a torch.optim.Optimizer, not int"),
        (["--topology", "bad.py:no_module", "--sparsity", "0.5"], "topology = {here}/bad.py:no_module: "),
        (
            ["--aggregator", "bad.py:NoResult", "--rounds", "1", "--workers", "1"],
            "aggregator = {here}/bad.py:NoResult: ",
        ),
        (["--strategy", "bad.py:no_module"], "strategy = {here}/bad.py:no_module: "),
    ],
)
def test_a_mistake_in_an_own_object_is_one_line_with_exit_code_2(
    tmp_path: Path, flags: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("x = 1 / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "bad.py").write_text(BAD)
    monkeypatch.chdir(tmp_path)
    assert main(flags) == 2
    shown = capsys.readouterr()
    assert line.format(here=tmp_path) in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.out + shown.err
