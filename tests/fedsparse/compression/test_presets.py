"""Presets: their settings, their published guarantees, and that they learn."""

import numpy as np
import pytest

from fedsparse.catalogue import COMPRESSORS
from fedsparse.compression import ClientState, UpdateCodec, decode
from fedsparse.compression.budgets import by_energy, proportional
from fedsparse.config import Config
from fedsparse.config.presets import PRESETS, resolve
from fedsparse.errors import ConfigError

from .common import clipped, draw_vector, layout_of, layout_of_shapes

SCOPES = ("auto", "global", "layer")
NAMES = (*COMPRESSORS, *PRESETS)
LAYOUT = layout_of_shapes((60, 40), (40,), (8, 4, 3, 3), (8,), buffers=4)


def codec_of(name: str, density: float = 0.1, **settings: object) -> UpdateCodec:
    config = Config.from_mapping({"compressor": name, "density": density} | settings)
    return UpdateCodec(LAYOUT, **config.compression())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("density", [1e-6, 0.001, 0.1, 0.5, 0.9, 1.0])
def test_no_payload_is_longer_than_dense_float32_and_64_bytes(name: str, density: float) -> None:
    for kind in ("normal", "heavy-tailed", "zeros", "one outlier"):
        payload, _ = codec_of(name, density).encode(draw_vector(kind, LAYOUT.size, 1), ClientState(), round=1, seed=1)
        assert len(payload) <= 4 * LAYOUT.size + 64


@pytest.mark.parametrize("name", ["terngrad", "qsgd", "natural", "eden", "randomk"])
def test_unbiased_methods_are_the_update_on_average_or_as_clipped(name: str) -> None:
    layout, draws = layout_of(150, 50), 1200
    config = Config.from_mapping({"compressor": name, "density": 0.3, "unbiased": True})
    codec = UpdateCodec(layout, **config.compression())
    update = draw_vector("heavy-tailed", 200, 3)
    aim = clipped(update, np.array([150, 50])) if name == "terngrad" else update
    mean, squares = np.zeros(200), 0.0
    for seed in range(draws):
        payload, _ = codec.encode(update, ClientState(), round=1, seed=seed)
        received = codec.decode(payload).to_dense()
        mean += received / draws
        squares += float(np.square(received - aim).sum()) / draws
    assert np.linalg.norm(mean - aim) <= 1.35 * np.sqrt(squares / draws) + 1e-6 * np.linalg.norm(update)


def test_stc_is_sparse_ternary_compression_of_each_tensor_as_in_its_authors_code() -> None:
    codec, update = codec_of("stc", 0.1), draw_vector("normal", LAYOUT.size, 1)
    for i, entry in enumerate(LAYOUT.trainable):
        update[entry.slice] *= 10.0**i  # over the whole update, the last tensor would take every coordinate
    payload, _ = codec.encode(update, ClientState(), round=1, seed=1)
    sent = codec.decode(payload).to_dense()
    for entry in LAYOUT.trainable:
        tensor, wanted = update[entry.slice], np.zeros(entry.size)
        top = np.argsort(-np.abs(tensor))[: max(1, round(0.1 * entry.size))]
        wanted[top] = np.sign(tensor[top]) * np.abs(tensor[top]).mean()
        np.testing.assert_allclose(sent[entry.slice], wanted, rtol=1e-6)


def test_sparseloco_keeps_a_decayed_residual_and_the_largest_of_each_chunk_in_two_bits() -> None:
    layout = layout_of_shapes((90, 100), (7,))  # chunks of 4096, 4096, 808 and 7
    codec = UpdateCodec(layout, **resolve("sparseloco"), density=64 / 4096)
    state, residual = ClientState(), np.zeros(layout.size, np.float32)
    for round in (1, 2):
        update = draw_vector("normal", layout.size, round)
        payload, _ = codec.encode(update, state, round=round, seed=1)
        codec.settle(state, round)
        total, sent = update + np.float32(0.95) * residual, codec.decode(payload).to_dense()
        for start, end, k in ((0, 4096, 64), (4096, 8192, 64), (8192, 9000, 13), (9000, 9007, 1)):
            largest = np.argsort(-np.abs(total[start:end]))[:k]
            assert set(np.flatnonzero(sent[start:end])) == set(largest)
        assert len(np.unique(np.abs(sent[sent != 0]))) <= 2
        assert np.array_equal(np.sign(sent)[sent != 0], np.sign(total)[sent != 0])
        residual = total - sent
        np.testing.assert_allclose(state.residual, residual, rtol=1e-5, atol=1e-6)
    assert len(payload) < 142 * (2.3 + 9) / 8 + 60


def test_a_preset_is_its_parts() -> None:
    update = draw_vector("normal", LAYOUT.size, 1)
    parts = [codec_of("stc"), UpdateCodec(LAYOUT, "hggtopk", 0.1, values="sign", scope="layer")]
    payloads = [c.encode(update, ClientState(), round=1, seed=1)[0] for c in parts]
    assert payloads[0] == payloads[1]


def test_a_preset_fixes_its_values_and_other_settings_override_the_rest() -> None:
    assert resolve("topk") == {
        "compressor": "topk", "values": "f16", "scope": "global", "feedback_decay": 1.0,
        "error_feedback": True, "unbiased": False,
    }  # fmt: skip
    assert resolve("none")["values"] == "f32"
    assert resolve("topk", "int8")["values"] == "int8"
    assert resolve("stc", "sign") == resolve("stc")
    assert resolve("eden") == {
        "compressor": "none", "values": "eden", "scope": "global", "feedback_decay": 1.0,
        "error_feedback": False, "unbiased": True,
    }  # fmt: skip
    assert resolve("eden", error_feedback=True)["unbiased"] is False
    assert resolve("signsgd", error_feedback=False)["error_feedback"] is False
    assert resolve("randomk", unbiased=True) == {
        "compressor": "randomk", "values": "bf16", "scope": "global", "feedback_decay": 1.0,
        "error_feedback": False, "unbiased": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["terngrad", "onebit", "signsgd"])
def test_a_preset_that_scales_by_layer_does_so_unless_scope_is_global(name: str) -> None:
    update = draw_vector("normal", LAYOUT.size, 1)
    small = LAYOUT.trainable[2].slice
    update[small] *= 1e-3
    payloads = {s: codec_of(name, scope=s).encode(update, ClientState(), round=1, seed=1)[0] for s in SCOPES}
    assert payloads["auto"] == payloads["layer"]
    largest = {s: np.abs(decode(p, LAYOUT).to_dense()[small]).max() / 1e-3 for s, p in payloads.items()}
    assert 0.5 < largest["layer"] < 4
    assert not 0.5 < largest["global"] < 100  # a global scale decodes to large values, or to 0
    assert Config.from_mapping({"compressor": name}).compression()["scope"] == "layer"
    assert Config.from_mapping({"compressor": "topk"}).compression()["scope"] == "global"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"compressor": "stc", "values": "int8"}, "values = int8: compressor = stc means sign"),
        ({"compressor": "qsgd", "unbiased": "on", "error-feedback": "on"}, "error-feedback = True: excludes"),
        ({"compressor": "topk", "unbiased": True}, "topk with values bf16 is never unbiased"),
        ({"compressor": "powersgd", "values": "sign"}, "powersgd sends factors, for which sign is too coarse"),
        ({"downlink-compressor": "dgc"}, "downlink-compressor = dgc"),
        ({"downlink-compressor": "stc", "downlink-values": "f32"}, "compressor = stc means sign"),
        ({"compressor": "lowrank", "sparsity": 0.5}, "compressor = lowrank factors layers as matrices"),
        ({"compressor": "powersgd", "upload-pruning": "magnitude"}, "compressor = powersgd factors layers"),
        ({"downlink-compressor": "powersgd", "sparsity": 0.5}, "downlink-compressor = powersgd factors layers"),
        ({"compressor": "nothing"}, "compressor = nothing: should be none, topk"),
    ],
)
def test_a_contradiction_is_one_line(settings: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        Config.from_mapping(settings)
    assert "\n" not in str(caught.value)


def test_a_small_dense_network_may_be_factored() -> None:
    assert Config.from_mapping({"compressor": "lowrank", "sparsity": 0.5, "topology": "small-dense"}).sparsity == 0.5


def test_settings_mean_the_same_after_a_trip_through_flowers_run_config() -> None:
    for name in NAMES:
        config = Config.from_mapping({"compressor": name})
        assert Config.from_mapping(config.flat()).compression() == config.compression()


def test_budgets_sum_to_the_density_and_follow_the_energy() -> None:
    sizes, rng = np.array([1000, 1, 50, 400]), np.random.default_rng(0)
    for _ in range(50):
        energies, density = rng.exponential(size=4) ** 4, float(rng.uniform(0.002, 1))
        counts = by_energy(sizes, energies, density)
        assert counts.sum() == proportional(sizes, density).sum()
        assert ((counts >= 1) & (counts <= sizes)).all()
    assert by_energy(sizes, np.array([1.0, 0, 0, 3.0]), 0.1).tolist() == [36, 1, 1, 108]
    assert by_energy(sizes, np.zeros(4), 0.1).tolist() == [100, 1, 5, 40]
    assert by_energy(sizes, np.array([0, 0, 1.0, 0]), 0.1).tolist()[2] == 50


def test_an_energy_budget_sends_more_of_the_layer_with_the_larger_update() -> None:
    update = draw_vector("normal", LAYOUT.size, 0)
    update[LAYOUT.trainable[2].slice] *= 30
    kept = {}
    for budget in ("proportional", "energy"):
        codec = UpdateCodec(LAYOUT, "topk", 0.05, "layer", budget=budget)
        payload, stats = codec.encode(update, ClientState(), round=1, seed=0)
        kept[budget] = np.count_nonzero(codec.decode(payload).to_dense()[LAYOUT.trainable[2].slice])
        assert stats["density"] == pytest.approx(0.05, abs=0.002)
    assert kept["energy"] > 5 * kept["proportional"]


def test_the_density_warms_up_for_any_compressor() -> None:
    for name in ("topk", "gaussian", "powersgd"):
        codec, state, kept = UpdateCodec(LAYOUT, name, 0.05, warmup_rounds=4), ClientState(), []
        for round in range(1, 7):
            _, stats = codec.encode(draw_vector("normal", LAYOUT.size, round), state, round=round, seed=0)
            codec.settle(state, round)
            kept.append(stats["density"])
        assert kept[0] > kept[1] > kept[3] > kept[4] * 1.2
        assert kept[4] == pytest.approx(kept[5], rel=0.5)
