"""Clients' reports as bytes."""

import tracemalloc

import pytest
import torch
from torch import nn

from fedsparse.sparsity.readjust import Report
from fedsparse.sparsity.reports import decode_report, encode_report
from fedsparse.vector import Layout
from tests.fedsparse.sparsity.architectures import generator, small_cnn

LAYOUT = Layout.of(small_cnn())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_a_report_takes_two_bytes_a_value_and_arrives_to_eight_bits(share: float, scale: float) -> None:
    indices = (torch.rand(LAYOUT.parameters, generator=generator(1)) < share).nonzero().squeeze(1)
    values = scale * torch.randn(indices.shape, generator=generator(2))
    payload = encode_report(Report(indices, values), LAYOUT, 3)
    got = decode_report(payload, LAYOUT, 3)
    assert torch.equal(got.indices, indices)
    torch.testing.assert_close(got.values, values, rtol=2.0**-8, atol=0)
    assert len(payload) <= 2 * len(indices) + LAYOUT.parameters / 8 + 50


def test_decoding_a_report_on_all_weights_takes_at_most_three_models_of_memory() -> None:
    layout = Layout.of(nn.Linear(500, 400))
    everything = Report(torch.arange(layout.parameters), torch.rand(layout.parameters))
    payload = encode_report(everything, layout, 3)
    tracemalloc.start()
    try:
        report = decode_report(payload, layout, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.indices.tolist() == everything.indices.tolist()
    assert peak < 2.5 * 4 * layout.size
