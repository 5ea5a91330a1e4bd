import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.catalogue import COMPRESSORS, VALUES
from fedsparse.compression import ClientState, NonFiniteError, UpdateCodec, decode
from fedsparse.config.presets import FINE_VALUES

from .common import (
    ALL,
    COMBINATIONS,
    KINDS,
    LAYOUT,
    SCOPES,
    SELECTIONS,
    draw_vector,
    layout_of,
    layout_of_shapes,
    run,
    top_by_sorting,
    updates,
)

PRECISION = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8, "int8": 1 / 253, "int4": 1 / 4, "power-of-two": 1 / 3}
NEAR = ("gaussian", "redsync", "threshold")  # selections that do not keep exactly k


@pytest.mark.parametrize(("compressor", "values", "scope"), COMBINATIONS)
@pytest.mark.parametrize("error_feedback", [True, False])
def test_every_combination_decodes_to_the_selected_values(compressor, values, scope, error_feedback):
    options = {"threshold": 1.65} if compressor == "threshold" else {}  # a tenth of a normal distribution is larger
    codec = UpdateCodec(LAYOUT, compressor, 0.1, scope, values, error_feedback, **options)
    for update in updates(3):
        payload, stats = codec.encode(update, ClientState(), round=1, seed=5)
        dense = decode(payload, LAYOUT).to_dense()
        parameters, sent = update[: LAYOUT.parameters], dense[: LAYOUT.parameters]
        chosen = sent != 0
        assert np.array_equal(dense[LAYOUT.parameters :], update[LAYOUT.parameters :])
        kept = round(stats["density"] * LAYOUT.parameters)
        assert np.abs(sent - parameters)[chosen].max() <= PRECISION.get(values, np.inf) * np.abs(parameters).max()
        assert values == "eden" or (np.sign(sent) == np.sign(parameters))[chosen].all()
        assert chosen.sum() <= kept if values in ("int4", "ternary", "int8", "eden") else chosen.sum() == kept
        wanted = LAYOUT.parameters if compressor == "none" else {"global": 54, "layer": 30 + 1 + 4 + 20}[scope]
        assert kept == wanted or (compressor in NEAR and abs(kept - wanted) <= wanted / 3 + 2)


@pytest.mark.parametrize(("compressor", "values", "scope"), ALL)
def test_sent_plus_residual_is_update_plus_old_residual(compressor, values, scope):
    codec = UpdateCodec(LAYOUT, compressor, 0.1, scope, values, **({"momentum": 0.0} if compressor == "dgc" else {}))
    state, n = ClientState(), LAYOUT.parameters
    for kind in ("normal", "ties", "zeros", "denormals", "heavy-tailed"):
        for round, update in enumerate(updates(4, kind=kind), 1):
            old = np.zeros(n, np.float32) if state.residual is None else state.residual.copy()
            payload, stats = codec.encode(update, state, round=round, seed=round)
            codec.settle(state, round)
            sent = codec.decode(payload).to_dense()[:n]
            left = np.zeros(n, np.float32) if state.residual is None else state.residual
            total = old + update[:n]
            if values == "f32" and compressor in SELECTIONS:  # values only move, so that all bits are equal
                assert np.array_equal(np.where(sent != 0, sent, left), total)
                assert not left[sent != 0].any()
            np.testing.assert_allclose(sent + left, total, rtol=1e-6, atol=1e-6 * np.abs(total).max())
            assert stats["residual_norm"] == pytest.approx(np.linalg.norm(left.astype(np.float64)), rel=1e-5, abs=1e-30)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("scope", SCOPES)
def test_hggtopk_and_topk_give_the_same_payloads(values, scope):
    for kind in KINDS:
        reference, _ = run(UpdateCodec(LAYOUT, "topk", 0.07, scope, values), 4, kind=kind)
        guided, _ = run(UpdateCodec(LAYOUT, "hggtopk", 0.07, scope, values), 4, kind=kind)
        assert np.array_equal(reference, guided)


@given(
    st.sampled_from(KINDS),
    st.integers(1, 200),
    st.floats(1e-4, 1),
    st.sampled_from(list(VALUES)),
    st.sampled_from(SCOPES),
)
@settings(max_examples=60, deadline=None)
def test_a_payload_is_never_longer_than_dense_float32_and_64_bytes(kind, n, density, values, scope):
    layout = layout_of(*[1] * min(n, 60), n, buffers=(3,))
    for compressor in COMPRESSORS if values in FINE_VALUES else SELECTIONS:
        codec = UpdateCodec(layout, compressor, density, scope, values)
        update = draw_vector(kind, layout.size, n)
        payload, _ = codec.encode(update, ClientState(), round=1, seed=n)
        assert len(payload) <= 4 * layout.size + 64
        assert np.array_equal(codec.decode(payload).to_dense()[layout.parameters :], update[layout.parameters :])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float32])
def test_any_floating_dtype_and_stride_gives_exactly_the_top_k_of_its_float32_value(dtype):
    wide = torch.from_numpy(draw_vector("normal", 3 * LAYOUT.size, 8)).to(dtype)
    update = wide[::3]
    assert not update.is_contiguous()
    codec = UpdateCodec(LAYOUT, "hggtopk", 0.05)
    payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
    parameters = update.float().numpy()[: LAYOUT.parameters]
    dense = codec.decode(payload).to_dense()[: LAYOUT.parameters]
    assert np.array_equal(np.flatnonzero(dense), top_by_sorting(parameters, 27))


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_an_update_is_not_changed_and_may_be_read_only(compressor):
    update = draw_vector("normal", LAYOUT.size, 1)
    update.flags.writeable = False
    before, state, codec = update.copy(), ClientState(), UpdateCodec(LAYOUT, compressor, 0.1)
    for round in (1, 2):
        codec.encode(update, state, round=round, seed=0)
        codec.settle(state, round)
    assert np.array_equal(update, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("at", "layer"), [(0, "layer0"), (300, "layer1"), (341, "layer3"), (541, "buffer0")])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_nan_and_infinity_are_refused_by_the_layers_name_and_leave_the_state_alone(compressor, at, layer, bad):
    codec = UpdateCodec(LAYOUT, compressor, 0.1, values="f16")
    _, state = run(codec, 2)
    codec.settle(state, 2)
    before = {k: np.copy(v) for k, v in state.to_dict().items()}
    update = draw_vector("normal", LAYOUT.size, 1)
    update[at] = bad
    with pytest.raises(NonFiniteError, match=f"'{layer}'") as caught:
        codec.encode(update, state, round=3, seed=0)
    assert caught.value.layer == layer
    after = state.to_dict()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_a_float64_beyond_float32_is_refused_and_a_square_beyond_it_is_not():
    codec = UpdateCodec(LAYOUT, "topk", 0.1)
    update = np.zeros(LAYOUT.size)
    update[3] = 1e30
    codec.encode(update, ClientState(), round=1, seed=0)
    update[3] = 1e300
    with pytest.raises(NonFiniteError, match="layer0"):
        codec.encode(update, ClientState(), round=1, seed=0)


def test_a_residual_that_overflows_is_refused_by_its_layers_name():
    codec, state = UpdateCodec(LAYOUT, "topk", 0.002, values="f16"), ClientState()
    update = np.full(LAYOUT.size, 3e38, np.float32)
    codec.encode(update, state, round=1, seed=0)
    codec.settle(state, 1)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(NonFiniteError, match="layer0"):
        codec.encode(update, state, round=2, seed=0)


def test_values_that_overflow_by_the_unbiased_factor_are_refused_by_a_layers_name():
    codec = UpdateCodec(LAYOUT, "randomk", 0.1, error_feedback=False, unbiased=True)
    update = np.zeros(LAYOUT.size, np.float32)
    update[341 : LAYOUT.parameters] = 3e38
    with np.errstate(over="ignore"), pytest.raises(NonFiniteError, match="layer3"):
        codec.encode(update, ClientState(), round=1, seed=0)


@pytest.mark.parametrize("error_feedback", [True, False])
def test_factors_whose_product_overflows_are_refused_by_the_layers_name(error_feedback):
    layout = layout_of_shapes((5,), (40, 30))
    codec = UpdateCodec(layout, "lowrank", 0.05, error_feedback=error_feedback)
    update = np.full(layout.size, 3e38, np.float32)
    update[5:].reshape(40, 30)[20:, 15:] = 0  # of ones and such zeros the best rank 1 has 1.17
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(NonFiniteError, match="layer1"):
        codec.encode(update, ClientState(), round=1, seed=0)


def test_layer_scope_keeps_at_least_one_of_every_layer_and_its_own_scale():
    layout = layout_of(100, 3, 50)
    update = np.concatenate([np.full(100, 1.0), np.full(3, 1e-3), np.full(50, 10.0)]).astype(np.float32)
    codec = UpdateCodec(layout, "topk", 0.02, "layer", "sign")
    payload, stats = codec.encode(update, ClientState(), round=1, seed=0)
    dense = codec.decode(payload).to_dense()
    assert np.flatnonzero(dense).tolist() == [0, 1, 100, 103]
    assert dense[[0, 100, 103]] == pytest.approx([1.0, 1e-3, 10.0])
    assert stats["density"] == pytest.approx(4 / 153)


def test_a_random_selection_sends_its_seed_and_not_its_indices():
    layout = layout_of(100_000)
    payload, _ = UpdateCodec(layout, "randomk", 0.01).encode(updates(1, layout)[0], ClientState(), round=1, seed=7)
    assert len(payload) < 4 * 1000 + 64


@pytest.mark.parametrize("scope", SCOPES)
def test_unbiased_randomk_is_the_update_on_average_and_refuses_error_feedback(scope):
    layout = layout_of(12, 5)
    codec = UpdateCodec(layout, "randomk", 0.4, scope, error_feedback=False, unbiased=True)
    update, draws = draw_vector("normal", layout.size, 0), 1500
    mean = np.zeros(layout.size)
    for seed in range(draws):
        payload, _ = codec.encode(update, ClientState(), round=1, seed=seed)
        codec.decode(payload).add_to(mean, 1 / draws)
    assert np.abs(mean - update).max() < 5 * np.abs(update).max() * np.sqrt(1.5 / draws)
    for wrong in ({"compressor": "randomk"}, {"compressor": "topk", "error_feedback": False}):
        with pytest.raises(ValueError, match="unbiased"):
            UpdateCodec(layout, **wrong, unbiased=True)


def test_four_rounds_of_warm_up_have_the_densities_of_dgcs_four_epochs():
    codec, state, kept = UpdateCodec(layout_of(100_000), "dgc", 0.001, warmup_rounds=4), ClientState(), []
    for round, update in enumerate(updates(6, codec.layout), 1):
        _, stats = codec.encode(update, state, round=round, seed=0)
        codec.settle(state, round)
        kept.append(stats["density"])
    # Section 3.3: a sparsity of 75 %, 93.75 %, 98.4375 % and 99.6 %, then 99.9 %.
    assert kept == pytest.approx([0.25, 0.0625, 0.015625, 0.004, 0.001, 0.001], rel=0.02)


def test_dgc_follows_the_papers_equations():
    n, k, rng = 200, 20, np.random.default_rng(0)
    codec = UpdateCodec(layout_of(n), "dgc", k / n, momentum=0.8, clipping=5.0)
    state, u, v = ClientState(), np.zeros(n), np.zeros(n)
    for round, gap in ((1, 1), (2, 1), (5, 3), (6, 1)):
        g = rng.standard_normal(n).astype(np.float32)
        u = 0.8**gap * u + g * min(1.0, 5.0 / np.linalg.norm(g))  # absent rounds are rounds with no update
        v = v + u
        top = top_by_sorting(v, k)
        payload, _ = codec.encode(g, state, round=round, seed=0)
        codec.settle(state, round)
        dense = codec.decode(payload).to_dense()
        assert np.array_equal(np.flatnonzero(dense), top)
        np.testing.assert_allclose(dense[top], v[top], rtol=1e-5)
        u[top] = v[top] = 0
        np.testing.assert_allclose(state.residual, v, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"compressor": "gzip"}, "compressor must be one of none, topk"),
        ({"values": "f8"}, "values must be one of f32, f16, .*, not 'f8'"),
        ({"scope": "row"}, "scope must be one of global, layer, chunk"),
        ({"density": 0}, "density must be in"),
        ({"density": 1.5}, "density must be in"),
        ({"density": float("nan")}, "density must be in"),
        ({"compressor": "dgc", "momentum": 1.0}, "momentum must be in"),
        ({"compressor": "dgc", "clipping": 0.0}, "clipping must be above 0"),
    ],
)
def test_a_wrong_setting_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        UpdateCodec(LAYOUT, **wrong)


def test_wrong_shapes_and_seeds_are_named():
    codec = UpdateCodec(LAYOUT)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        codec.encode(np.zeros(3), ClientState(), round=1, seed=0)
    with pytest.raises(ValueError, match="seed must be in"):
        codec.encode(np.zeros(LAYOUT.size), ClientState(), round=1, seed=-1)
    with pytest.raises(ValueError, match="residual of 2 elements"):
        codec.encode(np.zeros(LAYOUT.size), ClientState(np.zeros(2, np.float32)), round=1, seed=0)
    with pytest.raises(ValueError, match="no 'velocity' of type ndarray"):
        ClientState.from_dict({"velocity": np.zeros(2)})


@pytest.mark.parametrize("sizes", [(1,), (0, 3), ()])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_the_smallest_layouts_round_trip(sizes, compressor):
    layout = layout_of(*sizes, buffers=(2,))
    options = {"threshold": 1e-30} if compressor == "threshold" else {}
    for scope, values in itertools.product(SCOPES, VALUES if compressor in SELECTIONS else FINE_VALUES):
        codec = UpdateCodec(layout, compressor, 1.0, scope, values, **options)
        update = draw_vector("constant", layout.size, 0)
        payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
        received = codec.decode(payload).to_dense()
        assert np.array_equal(received, update) or values == "eden"
        assert np.abs(received - update).max() <= 0.25
