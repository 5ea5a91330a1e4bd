"""The workbench that the clients of a thread share."""

import numpy as np
import pytest

from clients.workbench import Workbench
from fedsparse.config import Config


@pytest.mark.parametrize("evaluated", [True, False])
def test_held_out_samples_are_never_trained_on_and_none_is_lost(evaluated: bool) -> None:
    bench = Workbench(Config(eval_clients=evaluated, distribution="dirichlet"))
    all_held_out = set[int]()
    for client in range(20):
        trained, held_out = (set(indices.tolist()) for indices in bench.samples(client))
        assert not trained & held_out
        assert trained | held_out == set(np.asarray(bench.partition[client]).tolist())
        all_held_out |= held_out
    assert bool(all_held_out) == evaluated
