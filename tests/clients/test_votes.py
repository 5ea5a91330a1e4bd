"""The payloads of clients in rounds in which they vote."""

import numpy as np
import pytest

from fedsparse.catalogue import COMPRESSORS
from fedsparse.clients.workbench import whole_codec
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.config.presets import FINE_VALUES, PRESETS
from tests.fedsparse.compression.common import draw_vector, layout_of_shapes

LAYOUT = layout_of_shapes((60, 40), (40,), (8, 4, 3, 3), (8,), buffers=4)


@pytest.mark.parametrize("name", [*COMPRESSORS, *PRESETS])
@pytest.mark.parametrize("values", ["auto", "f32"])
def test_a_vote_is_the_update_and_the_residual_whatever_the_compressor(name: str, values: str) -> None:
    settings = Config.from_mapping(
        {"compressor": name, "values": "auto" if name in PRESETS else values, "scope": "layer", "warmup-rounds": 9}
    ).compression()
    codec, state = UpdateCodec(LAYOUT, **settings), ClientState()
    vote, n = whole_codec(codec, settings), LAYOUT.parameters
    first, second = (0.01 * draw_vector("normal", LAYOUT.size, seed) for seed in (1, 2))
    codec.encode(first, state, round=1, seed=1)
    codec.settle(state, 1)
    wanted = second.copy()
    if state.residual is not None:
        wanted[:n] += state.residual
    payload, _ = vote.encode(second, state, round=2, seed=2)
    sent = vote.decode(payload).to_dense()
    assert settings["values"] in FINE_VALUES or len(payload) < 2.1 * LAYOUT.size
    np.testing.assert_allclose(
        sent, wanted, rtol=2.0**-8, atol=(2.0**-7 if settings["values"] == "int8" else 1e-6) * np.abs(wanted).max()
    )
    if state.residual is not None:
        np.testing.assert_allclose(sent[:n] + state.residual, wanted[:n], rtol=1e-6)
        vote.settle(state, 1)  # it was lost
        np.testing.assert_allclose(state.residual, wanted[:n], rtol=1e-6)
