"""Crops, flips and normalisation, against simple loops."""

import hashlib
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsparse.partitions import augment, embedded, normalise


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def slow(image: Tensor, down: int, across: int, mirrored: int, crop: int) -> Tensor:
    """The definition: pad, cut out, perhaps mirror, one pixel at a time."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for row, column in product(range(height), range(width)):
        source = (width - 1 - column) if mirrored else column
        y, x = row + down - crop, source + across - crop
        if 0 <= y < height and 0 <= x < width:
            result[:, row, column] = image[:, y, x]
    return result


def outcomes(image: Tensor, crop: int, flip: bool) -> list[Tensor]:
    """All possible results for an image (C, H, W): every place in the frame, plain and mirrored."""
    places = range(2 * crop + 1)
    return [slow(image, *draw, crop) for draw in product(places, places, range(1 + flip))]


@given(
    count=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    crop=st.integers(0, 2),
    flip=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_image_is_cropped_and_mirrored_as_in_a_loop_over_pixels(
    count: int, channels: int, height: int, width: int, crop: int, flip: bool, seed: int
) -> None:
    batch = images(count, channels, height, width)

    def augmented(batch: Tensor) -> Tensor:
        return augment(batch, crop, flip, torch.Generator().manual_seed(seed))

    result = augmented(batch)
    for image, before in zip(result, batch, strict=True):
        assert any(torch.equal(image, outcome) for outcome in outcomes(before, crop, flip))
    assert torch.equal(augmented(batch.contiguous(memory_format=torch.channels_last)), result)
    assert torch.equal(augmented(batch.float()), result.float())


def test_every_place_and_both_directions_are_equally_likely() -> None:
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 5, 5)  # no two outcomes of this image are equal
    result = augment(image.expand(60_000, -1, -1, -1), 2, True, torch.Generator().manual_seed(0))
    found, counts = result.flatten(1).unique(dim=0, return_counts=True)
    assert {tuple(row) for row in found.tolist()} == {tuple(o.flatten().tolist()) for o in outcomes(image, 2, True)}
    assert len(counts) == 50
    assert ((counts.double() - 1200).square() / 1200).sum() < 100  # chi-squared, 49 degrees of freedom: p about 2e-5


@pytest.mark.parametrize(("crop", "flip", "count"), [(4, False, 81), (0, True, 2)])
def test_without_flip_nothing_is_mirrored_and_without_crop_nothing_moves(crop: int, flip: bool, count: int) -> None:
    image = torch.arange(1, 50, dtype=torch.uint8).view(1, 7, 7)
    result = augment(image.expand(2000, -1, -1, -1), crop, flip, torch.Generator().manual_seed(0))
    assert {tuple(row) for row in result.flatten(1).tolist()} == {
        tuple(outcome.flatten().tolist()) for outcome in outcomes(image, crop, flip)
    }
    assert len(outcomes(image, crop, flip)) == count


def test_without_crop_and_flip_the_batch_itself_is_returned() -> None:
    batch = images(4, 1, 5, 5)
    assert augment(batch, 0, False, torch.Generator()) is batch


def test_each_image_has_its_own_place() -> None:
    batch = images(1, 1, 28, 28).expand(64, -1, -1, -1)
    result = augment(batch, 4, True, torch.Generator().manual_seed(0))
    assert len({tuple(image.flatten().tolist()) for image in result}) > 40


def test_the_generator_decides_alone() -> None:
    batch = images(32, 3, 8, 8)
    torch.manual_seed(1)
    one = augment(batch, 2, True, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    assert torch.equal(one, augment(batch, 2, True, torch.Generator().manual_seed(5)))
    assert not torch.equal(one, augment(batch, 2, True, torch.Generator().manual_seed(6)))


def test_a_seed_gives_the_same_crops_today_as_ever() -> None:
    result = augment(embedded.load(Path()).x_train[:64], 2, True, torch.Generator().manual_seed(0))
    found = hashlib.sha256(result.numpy().tobytes()).hexdigest()
    assert found == "f4dcf112fdd4b5472780d55fa90ed57d4014b19728fa966a847116e376e3bba2"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalise_subtracts_the_mean_divides_by_the_deviation_and_leaves_its_input(dtype: torch.dtype) -> None:
    batch = images(6, 3, 5, 4).to(dtype)
    before = batch.clone()
    mean, std = torch.tensor([100.0, 1.0, 0.0]), torch.tensor([50.0, 2.0, 255.0])
    result = normalise(batch, mean, std)
    expected = torch.stack([(before[:, c].double() - mean[c]) / std[c] for c in range(3)], dim=1)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(batch, before)


def test_normalise_keeps_channels_last() -> None:
    batch = images(6, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    assert normalise(batch, torch.zeros(3), torch.ones(3)).is_contiguous(memory_format=torch.channels_last)


def test_the_embedded_images_have_mean_0_and_deviation_1_once_normalised() -> None:
    data = embedded.load(Path())
    result = normalise(data.x_train, data.mean, data.std)
    assert abs(result.mean().item()) < 0.01
    assert abs(result.std().item() - 1) < 0.01


def test_a_data_set_goes_to_a_device_once() -> None:
    data = embedded.load(Path())
    assert data.to("cpu") is data
    moved = data.to("meta")
    assert moved is data.to(torch.device("meta"))
    assert {getattr(moved, key).device.type for key in ("x_train", "y_train", "x_test", "y_test", "mean", "std")} == {
        "meta"
    }
