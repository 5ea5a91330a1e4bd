"""What is not sent stays with the client, for every compressor and preset."""

from itertools import pairwise

import numpy as np
import pytest

from fedsparse.compression import ClientState, UpdateCodec

from .common import KINDS, draw_vector, layout_of
from .test_presets import LAYOUT, NAMES, codec_of


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
