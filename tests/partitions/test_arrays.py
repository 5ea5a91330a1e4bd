"""A user's own loader: the allowed results, and the one-line error for all other results."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.partitions import DataError, Images, as_dataset

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 8, 10), dtype=np.uint8)
LABELS = np.arange(12) % 3


def mapping(**changes: Any) -> dict[str, Any]:
    """A valid mapping with `changes`; a change to None removes the key."""
    arrays = {"x_train": GREY, "y_train": LABELS, "x_test": GREY[:5], "y_test": LABELS[:5]} | changes
    return {key: value for key, value in arrays.items() if value is not None}


def loaded(images: np.ndarray) -> Images:
    return as_dataset(mapping(x_train=images, x_test=images[:5]), "mine")


def test_grey_images_without_a_channel_axis_get_one() -> None:
    data = loaded(GREY)
    assert data.input_shape == (1, 8, 10)
    assert torch.equal(data.x_train[:, 0], torch.from_numpy(GREY))
    assert (data.classes, data.class_names, data.crop, data.flip) == (3, ("0", "1", "2"), 1, True)
    assert (data.owners, data.task) == (None, "classify")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f4"])
def test_channels_last_and_channels_first_give_the_same_images(channels: int, dtype: Any) -> None:
    first = RNG.integers(0, 256, (12, channels, 8, 10)).astype(dtype)
    expected = torch.from_numpy(first.astype(np.uint8 if dtype == np.uint8 else np.float32))
    for images in (first, np.ascontiguousarray(first.transpose(0, 2, 3, 1))):
        data = loaded(images)
        assert torch.equal(data.x_train, expected)
        assert data.x_train.dtype == expected.dtype
        assert data.x_train.is_contiguous()


def test_tensors_and_lists_are_as_good_as_arrays() -> None:
    expected = as_dataset(mapping(clients=LABELS, class_names=np.array(["a", "b", "c"])), "mine")
    as_tensors = {key: torch.from_numpy(value) for key, value in mapping(clients=LABELS).items()}
    as_lists = mapping(
        x_train=list(GREY), y_train=LABELS.tolist(), x_test=[list(image) for image in GREY[:5]], clients=list(LABELS)
    )
    for arrays in (as_tensors, as_lists):
        data = as_dataset(arrays | {"class_names": ("a", "b", "c")}, "mine")
        for key in ("x_train", "y_train", "x_test", "y_test", "mean", "std"):
            assert torch.equal(getattr(data, key), getattr(expected, key))
        assert np.array_equal(data.owners, expected.owners)  # type: ignore[arg-type]
        assert data.class_names == ("a", "b", "c")


def test_a_tensor_with_a_gradient_is_read_without_it() -> None:
    images = torch.rand(12, 1, 8, 10, requires_grad=True)
    data = as_dataset(mapping(x_train=images, x_test=images[:5]), "mine")
    assert torch.equal(data.x_train, images.detach())
    assert not data.x_train.requires_grad


def test_images_that_cannot_be_written_to_are_copied(recwarn: pytest.WarningsRecorder) -> None:
    images = np.frombuffer(GREY.tobytes(), np.uint8).reshape(GREY.shape)
    assert torch.equal(loaded(images).x_train[:, 0], torch.from_numpy(GREY))
    assert not recwarn.list


def test_mean_and_deviation_are_those_of_the_training_images() -> None:
    images = RNG.normal([1000.0, -5.0, 0.1], [1.0, 20.0, 0.01], (2500, 6, 6, 3))
    data = as_dataset(mapping(x_train=images, y_train=np.arange(2500) % 3, x_test=images[:5]), "mine")
    np.testing.assert_allclose(data.mean, images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(data.std, images.std((0, 1, 2)), rtol=1e-4)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    assert loaded(np.full((12, 8, 8), 7, np.uint8)).std.tolist() == [1.0]


def test_labels_in_a_column_are_accepted_as_keras_writes_them() -> None:
    data = as_dataset(mapping(y_train=LABELS[:, None].astype(np.uint8)), "mine")
    assert data.y_train.tolist() == LABELS.tolist()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=12, max_size=12))
def test_natural_clients_are_renumbered_in_ascending_order(ids: list[int]) -> None:
    data = as_dataset(mapping(clients=np.array(ids)), "mine")
    assert data.owners is not None
    assert data.owners.dtype == np.int64
    assert data.owners.tolist() == [sorted(set(ids)).index(number) for number in ids]


@pytest.mark.parametrize(
    ("labels", "gaps"),
    [
        (LABELS, ""),
        (LABELS + 1, "0"),
        (np.where(np.arange(12) == 5, 255, LABELS), "3 to 254"),
        (3 * LABELS + 2, "0 to 1, 3 to 4, 6 to 7"),
        (LABELS.reshape(12, 1), ""),
    ],
)
def test_labels_that_no_training_sample_has_are_named(labels: np.ndarray, gaps: str) -> None:
    assert as_dataset(mapping(y_train=labels, y_test=labels[:5]), "mine").classes_without_samples() == gaps


def test_labels_of_another_task_have_no_gaps() -> None:
    data = loaded(GREY)
    for y in (torch.zeros(12, 4, dtype=torch.int64), torch.zeros(12)):
        assert replace(data, y_train=y, y_test=y[:5], task="own").classes_without_samples() == ""


def test_a_class_may_have_a_name_and_no_training_sample() -> None:
    data = as_dataset(mapping(class_names=["cat", "dog", "eel", "fox"], y_test=[3, 0, 1, 2, 3]), "mine")
    assert (data.classes, data.y_test.tolist()) == (4, [3, 0, 1, 2, 3])


NAN_IN_IMAGE_2 = GREY.astype(np.float32)
NAN_IN_IMAGE_2[2, 0, 0] = np.nan
BAD: list[tuple[dict[str, Any], str]] = [
    ({"x_test": None, "y_test": None}, r"no x_test, y_test in it \(it has x_train, y_train\)"),
    ({"x_train": GREY.astype(np.int64)}, "x_train has dtype int64; images are uint8 or floating point"),
    ({"x_train": GREY[:0], "y_train": LABELS[:0]}, r"x_train is empty, shape \(0, 8, 10\)"),
    ({"y_train": LABELS[:0]}, r"y_train is empty, shape \(0,\)"),
    ({"x_train": GREY[0]}, r"x_train has shape \(8, 10\); images are"),
    ({"x_train": GREY[:, :, :, None, None]}, r"x_train has shape \(12, 8, 10, 1, 1\)"),
    ({"x_train": np.zeros((12, 4, 8, 8), np.uint8)}, r"x_train has shape \(12, 4, 8, 8\)"),
    ({"x_train": np.zeros((12, 3, 8, 3), np.uint8)}, "x_train has shape .* which axis holds the channels"),
    ({"x_train": NAN_IN_IMAGE_2}, "x_train has NaN or infinite pixels, the first in image 2"),
    ({"x_test": np.full((5, 8, 10), 1e300)}, "x_test has NaN or infinite pixels, the first in image 0"),
    ({"x_train": [[[1.0]], [[1.0, 2.0]]]}, "cannot read x_train: "),
    ({"x_train": torch.zeros(12, 8, 10, dtype=torch.bfloat16)}, "cannot read x_train: "),
    ({"x_train": "images"}, "x_train has dtype <U6; images are"),
    ({"x_train": GREY[:7]}, "x_train has 7 images but y_train has 12 labels"),
    ({"x_test": GREY[:5, :, :7]}, r"x_train has images of \(1, 8, 10\) uint8, but x_test of \(1, 8, 7\) uint8"),
    ({"x_test": GREY[:5] / 255}, r"x_train has images of \(1, 8, 10\) uint8, but x_test of \(1, 8, 10\) float32"),
    ({"y_train": LABELS / 2}, "y_train has shape .* and dtype float64; labels are whole numbers"),
    ({"y_train": np.eye(3)[LABELS].astype(int)}, r"y_train has shape \(12, 3\)"),
    ({"y_train": LABELS - 1}, "y_train has the label -1; labels run from 0"),
    ({"y_train": LABELS + 10**9}, "y_train has the label 1000000002"),
    ({"y_test": LABELS[:5] + 1}, "y_test has the label 3, but the classes are 0 to 2"),
    ({"clients": LABELS[:7]}, r"clients has shape \(7,\) and dtype int64; .* each of the 12 training samples"),
    ({"clients": LABELS[:, None]}, r"clients has shape \(12, 1\)"),
    ({"clients": LABELS / 2}, "clients has shape .* and dtype float64"),
    ({"clients": ["ann"] * 12}, "clients has shape .* and dtype <U3"),
    ({"class_names": ["cat", "dog"]}, "y_train has the label 2, but the classes are 0 to 1"),
    ({"class_names": [1, 2, 3]}, "class_names has shape .* and dtype int64; it is a list of strings"),
    ({"class_names": "cat"}, r"class_names has shape \(\) and dtype <U3; it is a list of strings"),
    ({"class_names": [["cat", "dog", "eel"]]}, r"class_names has shape \(1, 3\)"),
    ({"class_names": []}, "class_names is empty"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_misshapen_array_is_one_line_with_the_data_set_and_the_array(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        as_dataset(mapping(**changes), "mine.py:load")
    assert str(caught.value).startswith("mine.py:load: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"), [(OSError("disk\nand more"), "disk"), (RuntimeError(""), "RuntimeError")]
)
def test_an_array_that_cannot_be_read_is_one_line_whatever_is_raised(error: Exception, message: str) -> None:
    class Lazy(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise error

    with pytest.raises(DataError) as caught:
        as_dataset(Lazy(mapping()), "mine")
    assert str(caught.value) == f"mine: cannot read x_train: {message}"


@pytest.mark.parametrize("returned", [None, [], (GREY, LABELS), "data.npz", GREY])
def test_a_loader_that_returns_neither_a_data_set_nor_a_mapping_is_one_line(returned: Any) -> None:
    message = (
        "mine: a loader returns a fedsparse.partitions.Dataset or a mapping with x_train, y_train, x_test, y_test, not"
    )
    with pytest.raises(DataError, match=f"{message} {type(returned).__name__}"):
        as_dataset(returned, "mine")


def test_a_data_set_passes_as_it_is() -> None:
    data = loaded(GREY)
    assert as_dataset(data, "mine") is data


def test_a_data_set_may_have_a_task_and_shapes_of_its_own() -> None:
    task = object()
    targets = 100 * torch.rand(12), 100 * torch.rand(5)
    data = replace(loaded(GREY), task=task, y_train=targets[0], y_test=targets[1], classes=1, class_names=("height",))
    assert as_dataset(data, "mine").task is task


def test_the_natural_clients_of_a_data_set_are_renumbered() -> None:
    data = as_dataset(replace(loaded(GREY), owners=10 - LABELS), "mine")
    assert data.owners is not None
    assert data.owners.tolist() == (2 - LABELS).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": GREY}, "x_train is of type ndarray, not a tensor"),
        ({"std": 1.0}, "std is of type float, not a tensor"),
        ({"y_train": torch.zeros(7, dtype=torch.int64)}, "x_train has 12 images but y_train has 7 labels"),
        ({"x_test": torch.zeros(0), "y_test": torch.zeros(0)}, "x_test has 0 images but y_test has 0 labels"),
        ({"y_test": torch.tensor([0, 1, 3, 0, 0])}, "y_test has the label 3, but the classes are 0 to 2"),
        ({"y_test": torch.tensor([0, 1, -1, 0, 0])}, "y_test has the label -1, but the classes are 0 to 2"),
        ({"classes": 10}, "class_names has 3 names, but there are 10 classes"),
        ({"owners": LABELS[:7]}, r"owners has shape \(7,\)"),
    ],
)
def test_a_data_set_whose_tensors_do_not_fit_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"mine: {message}") as caught:
        as_dataset(replace(loaded(GREY), **changes), "mine")
    assert "\n" not in str(caught.value)
