"""Presets: their settings, their published guarantees, and that they learn."""

from itertools import pairwise

import numpy as np
import pytest

from fedsparse.catalogue import COMPRESSORS
from fedsparse.compression import ClientState, UpdateCodec, decode
from fedsparse.compression.budgets import by_energy, proportional
from fedsparse.config import Config
from fedsparse.config.presets import PRESETS, resolve
from fedsparse.errors import ConfigError

from .common import KINDS, clipped, draw_vector, layout_of, layout_of_shapes

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


@pytest.mark.parametrize("name", NAMES)
def test_sent_plus_residual_is_update_plus_decayed_old_residual(name: str) -> None:
    assert codec_of(name).feedback.decay == (0.95 if name == "sparseloco" else 1)
    for kind in KINDS:
        codec, state, n = codec_of(name, error_feedback=True, dgc_momentum=0.0), ClientState(), LAYOUT.parameters
        for round, missed in ((1, 0), (2, 0), (6, 3), (7, 0)):
            update = draw_vector(kind, LAYOUT.size, round)
            old = 0.0 if state.residual is None else state.residual * codec.feedback.decay * 0.88**missed
            payload, _ = codec.encode(update, state, round=round, seed=round)
            codec.settle(state, round)
            left = 0.0 if state.residual is None else state.residual
            total = old + update[:n]
            sent = codec.decode(payload).to_dense()[:n]
            np.testing.assert_allclose(sent + left, total, rtol=1e-5, atol=2e-6 * np.abs(total).max() + 1e-43)


def error_and_square(name: str, kind: str, seed: int = 1) -> tuple[float, float, np.ndarray, np.ndarray]:
    """``||x - C(x)||^2`` without an earlier residual, ``||x||^2``, x and C(x)."""
    update = draw_vector(kind, LAYOUT.size, 2)
    codec = codec_of(name, error_feedback=True, threshold=0.5)
    payload, _ = codec.encode(update, ClientState(), round=1, seed=seed)
    x, sent = (v[: LAYOUT.parameters].astype(np.float64) for v in (update, codec.decode(payload).to_dense()))
    return np.square(x - sent).sum(), np.square(x).sum(), x, sent


@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "sorted", "ties", "constant"])
@pytest.mark.parametrize("name", NAMES)
def test_with_error_feedback_every_compressor_is_a_contraction(name: str, kind: str) -> None:
    left, square, x, sent = error_and_square(name, kind)
    assert left < square or (name == "threshold" and not sent.any())
    chosen = sent != 0
    delta = 0.0
    if name in ("topk", "hggtopk", "dgc", "gaussian", "redsync", "threshold"):  # Stich et al. 2018, definition 2.1
        delta = chosen.mean()
    elif name in ("stc", "signsgd"):  # Basu et al. 2019; Karimireddy et al. 2019
        delta = np.abs(x[chosen]).sum() ** 2 / (chosen.sum() * square)
    assert left <= (1 - delta + 1e-6) * square


def test_randomk_is_a_contraction_on_average() -> None:
    ratios = [left / square for left, square, *_ in (error_and_square("randomk", "normal", s) for s in range(300))]
    assert np.mean(ratios) == pytest.approx(1 - 0.1, abs=0.003)  # Stich et al. 2018, definition 2.1


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


def regression(name: str, rounds: int, lr: float, **settings: object) -> list[float]:
    """Losses of federated least squares, 3 of 6 clients a round, each client with its own data."""
    rng, n = np.random.default_rng(0), LAYOUT.size
    truth = rng.standard_normal(n)
    curvatures, shifts = rng.uniform(0.2, 1, (6, n)), rng.standard_normal((6, n))
    shifts -= (curvatures * shifts).sum(0) / curvatures.sum(0)  # so that `truth` is the common optimum
    codec, weights = codec_of(name, 0.1, **settings), np.zeros(n)
    states, losses = [ClientState() for _ in range(6)], []
    accepted = dict.fromkeys(range(6), 0)
    for round in range(1, rounds + 1):
        mean = np.zeros(n)
        for client in rng.choice(6, 3, replace=False):
            update = -lr * curvatures[client] * (weights - truth - shifts[client])
            codec.settle(states[client], accepted[client])
            payload, _ = codec.encode(
                update.astype(np.float32), states[client], round=round, seed=1000 * round + int(client)
            )
            accepted[client] = round
            codec.decode(payload).add_to(mean, 1 / 3)
        weights += mean
        losses.append(float(np.square(weights - truth).mean()))
    return losses


@pytest.mark.parametrize("decay", [0.88, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_error_feedback_with_clients_that_come_and_go_does_not_diverge(name: str, decay: float) -> None:
    losses = regression(name, 50, lr=0.15, dgc_momentum=0.5, residual_decay=decay)
    assert max(losses) < 4 * losses[0]
    assert np.mean(losses[-10:]) < 0.6 * losses[0]


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


def test_a_residual_in_bf16_takes_half_the_memory_and_loses_nothing_on_average() -> None:
    codec, state = UpdateCodec(LAYOUT, "topk", 0.01, residual_dtype="bf16"), ClientState()
    n, total, sent = LAYOUT.parameters, np.zeros(LAYOUT.parameters), np.zeros(LAYOUT.parameters)
    for round in range(1, 60):
        update = np.full(LAYOUT.size, 0.001, np.float32) + draw_vector("normal", LAYOUT.size, round) * 1e-3
        payload, _ = codec.encode(update, state, round=round, seed=round)
        assert state.residual.dtype == np.uint16
        assert state.to_dict()["residual"].nbytes == 2 * n
        state = ClientState.from_dict(state.to_dict())
        codec.settle(state, round)
        sent += codec.decode(payload).to_dense()[:n]
        total += update[:n]
    left = (state.residual.astype(np.uint32) << 16).view(np.float32)
    drift = sent + left - total
    assert abs(drift.mean()) < 0.002 * np.abs(total).mean()
    assert np.abs(drift).max() < 0.04 * np.abs(total).max()
    codec.settle(state, None)


def test_a_residual_decays_for_missed_rounds_only() -> None:
    codec = UpdateCodec(layout_of(100), "topk", 0.05, residual_decay=0.5)
    state, zero = ClientState(), np.zeros(100, np.float32)
    codec.encode(draw_vector("normal", 100, 0), state, round=1, seed=0)
    norms = []
    for round in (2, 3, 6):
        codec.settle(state, state.sent_round)
        norms.append(float(np.square(state.residual).sum()))
        payload, _ = codec.encode(zero, state, round=round, seed=0)
        norms.append(float(np.square(state.residual).sum() + np.square(codec.decode(payload).to_dense()).sum()))
    ratios = [after / before for before, after in list(pairwise(norms))[::2]]
    assert ratios == pytest.approx([1, 1, 0.0625], rel=1e-4)


@pytest.mark.parametrize(("decay", "least", "most"), [(1.0, 0.95, 1.0), (0.88, 0.3, 0.45)])
def test_a_constant_update_arrives_whole_without_decay_and_a_third_with_decay(
    decay: float, least: float, most: float
) -> None:
    codec, state, sent = codec_of("hggtopk", 0.06, residual_decay=decay), ClientState(), np.zeros(LAYOUT.size)
    update = draw_vector("normal", LAYOUT.size, 0)
    update[LAYOUT.parameters :] = 0
    for i in range(200):  # present in every tenth round
        codec.settle(state, 1 + 10 * i)
        payload, _ = codec.encode(update, state, round=1 + 10 * i, seed=i)
        codec.decode(payload).add_to(sent)
    assert least <= sent @ update / (200 * np.square(update).sum()) <= most


def test_the_density_warms_up_for_any_compressor() -> None:
    for name in ("topk", "gaussian", "powersgd"):
        codec, state, kept = UpdateCodec(LAYOUT, name, 0.05, warmup_rounds=4), ClientState(), []
        for round in range(1, 7):
            _, stats = codec.encode(draw_vector("normal", LAYOUT.size, round), state, round=round, seed=0)
            codec.settle(state, round)
            kept.append(stats["density"])
        assert kept[0] > kept[1] > kept[3] > kept[4] * 1.2
        assert kept[4] == pytest.approx(kept[5], rel=0.5)
