"""Crops, flips and normalisation against loops that anyone can check."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from partitions import apply_augmentation, augment, draw_augmentation, load_dataset, normalise, to_device


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def slow(batch: Tensor, crop: int, draws: Tensor) -> Tensor:
    """The definition: pad, cut out, perhaps mirror, one image and one pixel at a time."""
    result = torch.zeros_like(batch)
    count, channels, height, width = batch.shape
    for i in range(count):
        down, across, mirrored = draws[:, i].tolist()
        for row in range(height):
            for column in range(width):
                source = (width - 1 - column) if mirrored else column
                y, x = row + down - crop, source + across - crop
                if 0 <= y < height and 0 <= x < width:
                    result[i, :channels, row, column] = batch[i, :channels, y, x]
    return result


@given(
    count=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    crop=st.integers(0, 3),
    flip=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_crop_and_flip_agree_with_a_loop_over_pixels(
    count: int, channels: int, height: int, width: int, crop: int, flip: bool, seed: int
) -> None:
    batch = images(count, channels, height, width)
    draws = draw_augmentation(count, crop, flip, torch.Generator().manual_seed(seed))
    expected = slow(batch, crop, draws)
    assert torch.equal(apply_augmentation(batch, crop, draws), expected)
    assert torch.equal(augment(batch, crop, flip, torch.Generator().manual_seed(seed)), expected)
    channels_last = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(apply_augmentation(channels_last, crop, draws), expected)
    assert torch.equal(apply_augmentation(batch.float(), crop, draws), expected.float())


def test_every_place_and_both_directions_are_equally_likely() -> None:
    draws = draw_augmentation(60_000, 2, True, torch.Generator().manual_seed(0))
    cells = (draws[0] * 5 + draws[1]) * 2 + draws[2]
    counts = cells.bincount(minlength=50).double()
    assert len(counts) == 50
    assert ((counts - 1200).square() / 1200).sum() < 100  # chi-squared, 49 degrees of freedom: p about 2e-5


def test_without_flip_nothing_is_mirrored_and_without_crop_nothing_moves() -> None:
    assert draw_augmentation(1000, 4, False, torch.Generator())[2].sum() == 0
    assert draw_augmentation(1000, 0, True, torch.Generator())[:2].sum() == 0
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


def test_draws_of_several_clients_joined_give_what_each_would_get_alone() -> None:
    batch = images(10, 3, 8, 8)
    draws = [draw_augmentation(5, 2, True, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    alone = [augment(part, 2, True, torch.Generator().manual_seed(s)) for s, part in enumerate(batch.split(5))]
    assert torch.equal(apply_augmentation(batch, 2, torch.cat(draws, dim=1)), torch.cat(alone))


def test_a_seed_gives_the_same_crops_today_as_ever() -> None:
    result = augment(load_dataset().x_train[:64], 2, True, torch.Generator().manual_seed(0))
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
    data = load_dataset()
    result = normalise(data.x_train, data.mean, data.std)
    assert abs(result.mean().item()) < 0.01
    assert abs(result.std().item() - 1) < 0.01


def test_a_data_set_goes_to_a_device_once() -> None:
    data = load_dataset()
    assert to_device(data, "cpu") is data
    moved = to_device(data, "meta")
    assert moved is to_device(data, torch.device("meta"))
    assert {getattr(moved, key).device.type for key in ("x_train", "y_train", "x_test", "y_test", "mean", "std")} == {
        "meta"
    }
