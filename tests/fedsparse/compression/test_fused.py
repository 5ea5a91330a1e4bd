"""The Triton kernel. The test of its results (in Triton's interpreter) and of its compilation need no GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fedsparse.compression.client_state import ClientState
from fedsparse.compression.hggtopk import SAMPLE, HGGTopK
from fedsparse.compression.selection import Part

from .common import KINDS, draw_vector, top_by_sorting

pytest.importorskip("triton", reason="there is no Triton here")

INTERPRETED = """
import torch
from fedsparse.compression.fused import BLOCK, collect_on_device
from tests.fedsparse.compression.common import KINDS, draw_vector

for kind in KINDS:
    for n in (1, BLOCK - 1, BLOCK, 3 * BLOCK + 5):
        update, residual = (torch.from_numpy(draw_vector(kind, n, seed)) for seed in (1, 2))
        for added in (None, residual.clone()):
            out = update if added is None else added
            expected = update if added is None else residual + update
            threshold = expected.abs().median()
            hits = torch.nonzero(expected.abs() >= threshold).squeeze(1)
            found = collect_on_device(update, added, out, threshold, capacity=n)
            assert torch.equal(found, hits), (kind, n)
            assert out.numpy().tobytes() == expected.numpy().tobytes(), (kind, n)
            assert collect_on_device(update, None, update, torch.zeros(()), capacity=n - 1) is None
"""


def test_the_kernel_adds_and_collects_as_torch_does():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_compiles_for_gpus_that_are_not_here(capability):
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fedsparse.compression.fused import BLOCK, collect_kernel

    pointers = {"update": "*fp32", "residual": "*fp32", "out": "*fp32", "threshold": "*fp32", "found": "*i64"}
    others = {"count": "*i32", "n": "i32", "capacity": "i32", "ADD": "constexpr", "BLOCK": "constexpr"}
    for add in (True, False):
        source = ASTSource(collect_kernel, pointers | others, {"ADD": add, "BLOCK": BLOCK})
        code = compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]
        assert "add.f32" in code if add else "add.f32" not in code
        assert "ftz" not in code  # denormals are kept, as in torch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_the_selection_is_the_true_top_k_and_the_residual_the_exact_sum(kind):
    n, k = 10 * SAMPLE + 7, SAMPLE // 10
    vector, residual = draw_vector(kind, n, 1), draw_vector(kind, n, 2)
    state = ClientState(torch.from_numpy(residual).cuda())
    _, (indices,) = HGGTopK().select(torch.from_numpy(vector).cuda(), state, [Part(0, n, k)], 1, 0)
    assert np.array_equal(indices.cpu().numpy(), top_by_sorting(residual + vector, k))
    assert np.array_equal(state.residual.cpu().numpy(), residual + vector)
