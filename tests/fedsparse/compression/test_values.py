"""Value codings against their definitions: unbiased codings on average, biased codings as contractions."""

import numpy as np
import pytest
import scipy.linalg

from fedsparse.catalogue import VALUES
from fedsparse.compression.arrays import from_bf16, to_bf16
from fedsparse.compression.eden import hadamard_of_signs, hadamard_rows, rotate
from fedsparse.compression.levels import block_lengths
from fedsparse.compression.values import value_codec
from fedsparse.config.presets import UNBIASED_VALUES

from .common import KINDS, clipped, draw_vector


def through(name: str, values: np.ndarray, counts: np.ndarray, seed: int = 0, unbiased: bool = False) -> np.ndarray:
    codec = value_codec(name)
    return codec.decode(memoryview(bytes(codec.encode(values, counts, seed, unbiased))), counts)


@pytest.mark.parametrize("name", UNBIASED_VALUES)
@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "one outlier", "ties", "mostly zeros"])
def test_the_mean_over_many_draws_is_the_value_itself_or_as_clipped(name: str, kind: str) -> None:
    draws, counts = 1500, np.array([40, 0, 160])
    values = draw_vector(kind, 200, 4)
    mean = clipped(values, counts) if name == "ternary" else values
    total, squares = np.zeros(200), np.zeros(200)
    for seed in range(draws):
        received = through(name, values, counts, seed, unbiased=True)
        total += received
        squares += (received - mean) ** 2
    error, deviation = np.linalg.norm(total / draws - mean), np.sqrt(squares.sum()) / draws
    assert error <= 1.35 * deviation + 1e-6 * np.linalg.norm(values)


# ||x - C(x)||^2 <= (1 - delta) ||x||^2, with the delta that each definition gives
DELTA = {
    "f32": lambda x: 1.0,
    "bf16": lambda x: 1 - 2.0**-16,
    "int8": lambda x: 1 - x.size / 254**2,  # half a level each
    "int4": lambda x: 1 - 1 / 9 - x.size * 2.0**-14,  # a third of itself, or half of the lowest level
    "int2": lambda x: np.abs(x).sum() ** 2 / (x.size * np.square(x).sum()),  # never worse than one magnitude
    "power-of-two": lambda x: 1 - 1 / 9,
    "ternary": lambda x: 1 / x.size,
    "sign": lambda x: np.abs(x).sum() ** 2 / (x.size * np.square(x).sum()),
    "two-means": lambda x: np.abs(x).sum() ** 2 / (x.size * np.square(x).sum()),  # never worse than one mean
    "eden": lambda x: 0.2,  # 2 / pi on average over rotations; with room for one
}


@pytest.mark.parametrize("name", DELTA)
@pytest.mark.parametrize(
    "kind", ["normal", "heavy-tailed", "constant", "ties", "mostly zeros", "sorted", "one outlier"]
)
def test_to_the_nearest_every_coding_is_a_contraction(name: str, kind: str) -> None:
    for seed in range(5):
        x = draw_vector(kind, 200, seed).astype(np.float64)
        received = through(name, x.astype(np.float32), np.array([200]), seed)
        bound = (1 - DELTA[name](x)) * np.square(x).sum()
        assert np.square(x - received).sum() <= bound + 1e-9 * np.square(x).sum(), seed


@pytest.mark.parametrize("unbiased", [False, True])
def test_ternary_values_with_a_common_mean_arrive_nearly_whole(unbiased: bool) -> None:
    x = (1 + 0.01 * draw_vector("normal", 200, 0)).astype(np.float32)
    received = through("ternary", x, np.array([200]), 0, unbiased)
    assert np.square(x - received).sum() <= 0.05 * np.square(x).sum()


@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "one outlier"])
def test_ternary_values_of_mean_zero_are_clipped_at_the_papers_limit_of_two_and_a_half_deviations(kind: str) -> None:
    half = draw_vector(kind, 400, 1)
    x = np.concatenate([half, -half])
    received = through("ternary", x, np.array([x.size]), 0, unbiased=True)
    assert np.abs(received).max() == pytest.approx(min(2.5 * x.std(dtype=np.float64), np.abs(x).max()))


def test_a_ternary_value_that_is_alone_or_like_all_others_arrives_where_the_papers_limit_would_be_zero() -> None:
    for x in (np.full(1, 3.0, np.float32), np.full(9, -0.5, np.float32)):
        assert x.std() == 0
        assert np.array_equal(through("ternary", x, np.array([x.size]), 0, unbiased=True), x)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unbiased", [False, True])
def test_decoded_values_are_finite_and_as_many_as_declared(name, kind, unbiased) -> None:
    codec = value_codec(name)
    for n in (0, 1, 5, 31, 300, 5000):
        values, counts = draw_vector(kind, max(n, 1), n)[:n], np.array([n // 4, 0, n - n // 4])
        body = codec.encode(values, counts, 2**64 - 1, unbiased and name in UNBIASED_VALUES)
        assert len(body) == codec.size(counts)
        received = codec.decode(memoryview(bytes(body)), counts)
        assert received.dtype == np.float32
        assert received.shape == (n,)
        assert np.isfinite(received).all()


def test_bits_of_each_coding() -> None:
    bits = {name: 8 * value_codec(name).size(np.array([1 << 16])) / (1 << 16) for name in VALUES}
    most = {"f32": 32, "f16": 16, "bf16": 16, "int8": 8.13, "int4": 4.13, "int2": 2.26, "ternary": 1.61,
            "power-of-two": 9, "two-means": 1.01, "sign": 1.01, "eden": 1.01}  # fmt: skip
    assert bits.keys() == most.keys()
    assert all(bits[name] <= most[name] for name in most)


def test_eden_errs_as_its_paper_says() -> None:
    x = draw_vector("normal", 1 << 16, 0)
    counts = np.array([x.size])
    for unbiased, expected in ((True, np.pi / 2 - 1), (False, 1 - 2 / np.pi)):
        received = through("eden", x, counts, 3, unbiased)
        assert np.square(x - received).sum() / np.square(x).sum() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("width", "bias"), [(32, 0.06), (256, 0.004), (4096, 0.002)])
def test_edens_bias_for_two_values_alone_vanishes_as_blocks_grow(width: int, bias: float) -> None:
    x, draws = np.zeros(width, np.float32), 3000 if width < 4096 else 600
    x[:2] = 1, 0.5
    mean = sum(through("eden", x, np.array([width]), seed, unbiased=True)[:2] for seed in range(draws)) / draws
    assert np.linalg.norm(mean - x[:2]) <= bias * np.linalg.norm(x)


@pytest.mark.parametrize("width", [32, 64, 128, 4096])
def test_the_hadamard_transform_is_the_matrix_and_the_rotation_turns_back(width: int) -> None:
    x = draw_vector("normal", 3 * width, 1)
    expected = x.reshape(3, width) @ scipy.linalg.hadamard(width) / np.sqrt(width)
    np.testing.assert_allclose(hadamard_rows(x.reshape(3, width)), expected, atol=1e-5)
    widths = np.array([width, width, 64, 32])
    y = draw_vector("normal", int(widths.sum()), 2)
    np.testing.assert_allclose(rotate(rotate(y.copy(), widths, 7), widths, 7, back=True), y, atol=1e-5)


def test_the_fast_transform_of_signs_has_the_bits_of_the_one_that_adds_in_order() -> None:
    rng = np.random.default_rng(0)
    turned = np.where(rng.random((5, 4096)) < 0.5, np.float32(-1), np.float32(1))
    turned[0] = 1  # all of a row in one coordinate
    for _ in range(2):
        slow, turned = hadamard_rows(turned), hadamard_of_signs(turned)
        assert np.array_equal(turned.view(np.uint32), slow.view(np.uint32))
        turned = turned * np.where(rng.random(turned.shape) < 0.5, np.float32(-1), np.float32(1))


def test_a_rotation_is_the_same_on_every_machine() -> None:
    turned = rotate(np.arange(32, dtype=np.float32), np.array([32]), 5)
    assert turned[:4].tolist() == [-17.25, 14.749998092651367, 19.75, 27.749996185302734]


def test_bf16_rounds_as_torch_does_and_at_random_between_neighbours() -> None:
    torch = pytest.importorskip("torch")
    x = np.concatenate([draw_vector(kind, 500, 3) for kind in KINDS])
    nearest = torch.from_numpy(x).to(torch.bfloat16).float().numpy()
    assert np.array_equal(from_bf16(to_bf16(x)), nearest)
    random = from_bf16(to_bf16(x, seed=1))
    assert (np.abs(random - x) <= np.abs(x) * 2.0**-7 + 1e-40).all()


def test_groups_are_cut_into_blocks() -> None:
    lengths = block_lengths(np.array([0, 5, 256, 257, 0, 600]), 256)
    assert lengths.tolist() == [5, 256, 256, 1, 256, 256, 88]
