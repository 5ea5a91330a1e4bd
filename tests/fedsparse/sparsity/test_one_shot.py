"""One-shot pruning of whole models."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.data import load_dataset
from fedsparse.sparsity.one_shot import (
    input_matrix,
    layer_hessian,
    prune_layer,
    prune_model,
    recalibrate_batchnorm,
    weight_matrix,
)
from fedsparse.vector import FlatModel
from tests.fedsparse.sparsity.architectures import generator, output_error


def images(count: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, 10, 9, generator=generator(seed))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding="same", groups=16),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(400, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@given(st.data())
@settings(max_examples=50, deadline=None)
def test_a_convolution_is_its_weight_matrix_times_its_input_matrix(data):
    groups = data.draw(st.sampled_from([1, 2, 4]))
    kernel = data.draw(st.sampled_from([(1, 1), (3, 3), (2, 3)]))
    stride, dilation = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    padding = data.draw(st.sampled_from([0, 1, (2, 1), "valid"] + (["same"] if stride == 1 else [])))
    mode = data.draw(st.sampled_from(["zeros", "reflect", "circular"]))
    multiple = data.draw(st.sampled_from([1, 4]))
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias=False, padding_mode=mode)
    expected = layer(images(3)).transpose(0, 1).flatten(1)
    product = weight_matrix(layer, multiple).double() @ input_matrix(layer, images(3), multiple)
    torch.testing.assert_close(product.flatten(0, 1).float(), expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_linear_layer_takes_inputs_of_any_leading_dimensions():
    layer, inputs = nn.Linear(6, 3, bias=False), torch.randn(2, 5, 6)
    product = weight_matrix(layer)[0] @ input_matrix(layer, inputs)[0].float()
    torch.testing.assert_close(product, layer(inputs).reshape(-1, 3).T.detach())
    hessian = layer_hessian(nn.Sequential(layer), layer, [inputs, inputs[:1]])
    rows = torch.cat([inputs, inputs[:1]]).reshape(-1, 6).double()
    torch.testing.assert_close(hessian[0], rows.T @ rows / 15)


def test_the_hessian_is_the_same_mean_however_its_inputs_are_batched(monkeypatch):
    model = network().eval()
    whole = layer_hessian(model, model[3], [images()])
    monkeypatch.setattr("fedsparse.sparsity.one_shot.CHUNK", 1)
    torch.testing.assert_close(layer_hessian(model, model[3], list(images().split(24))), whole)


@pytest.mark.parametrize("method", ["sparsegpt", "magnitude"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 1.0])
def test_every_layer_has_exactly_the_sparsity_asked_for(method, sparsity):
    model = network()
    masks = prune_model(model, [images()], sparsity, method=method, dense_layers=())
    assert list(masks) == ["0.weight", "3.weight", "5.weight", "9.weight", "11.weight"]
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert int(mask.sum()) == round((1 - sparsity) * weight.numel())
        assert mask.shape == weight.shape
        assert not bool(weight[~mask].any())
        assert bool(weight.isfinite().all())


def test_the_first_and_the_last_layer_stay_dense_by_default():
    model, before = network(), network()
    masks = prune_model(model, [images()], 0.5)
    assert list(masks) == ["3.weight", "5.weight", "9.weight"]
    assert torch.equal(model[0].weight, before[0].weight)
    assert torch.equal(model[11].weight, before[11].weight)


@pytest.mark.parametrize("method", ["sparsegpt", "magnitude"])
def test_two_of_four_runs_along_the_input_channels_with_groups_and_depthwise(method):
    model = network()
    masks = prune_model(model, [images()], nm=(2, 4), method=method, dense_layers=())
    for name in ("0.weight", "3.weight", "9.weight", "11.weight"):
        fours = masks[name].unflatten(1, (-1, 4))  # every 4 consecutive input channels, at each kernel position
        assert bool((fours.sum(2) == 2).all())
        assert not bool(model.get_parameter(name)[~masks[name]].any())
    assert bool(masks["5.weight"].all())  # depthwise: one channel, of which two of four may stay


def test_channels_left_over_by_m_keep_at_most_n():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(7, 5, 3))
    masks = prune_model(model, [torch.randn(8, 7, 8, 8)], nm=(2, 4), dense_layers=())
    assert bool((masks["0.weight"][:, :4].sum(1) == 2).all())
    assert bool((masks["0.weight"][:, 4:].sum(1) == 2).all())


@pytest.mark.parametrize("method", ["sparsegpt", "magnitude"])
def test_of_a_layer_with_fewer_than_m_channels_n_stay_and_no_time_is_lost(method: str):
    for nm in ((3, 8), (3, 10**9)):
        model = nn.Sequential(nn.Conv2d(7, 12, 3), nn.ReLU(), nn.Conv2d(12, 5, 3))
        masks = prune_model(model, [torch.randn(8, 7, 8, 8)], nm=nm, method=method, dense_layers=())
        channels = min(nm[1], 12)
        assert (masks["0.weight"].sum(1) == 3).all()
        groups = [group.sum(1) for group in masks["2.weight"].split(channels, 1)]
        assert all((group == 3).all() for group in groups)


def test_each_layer_is_calibrated_on_inputs_already_pruned():
    batches = [images(seed=1), images(seed=2)]
    model, by_hand = network().eval(), network().eval()
    prune_model(model, batches, 0.6, dense_layers=())
    for index in (0, 3, 5, 9, 11):
        layer = by_hand[index]
        prune_layer(layer, layer_hessian(by_hand, layer, batches), round(0.4 * layer.weight.numel()))
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_layers_are_pruned_in_the_order_in_which_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first, self.never = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.second(self.first(x).relu())

    assert list(prune_model(Backwards(), [torch.randn(20, 6)], 0.5, dense_layers=())) == [
        "first.weight",
        "second.weight",
    ]


def test_pruning_calibrates_in_eval_mode_and_restores_every_modules_mode():
    model = network().train()
    model[1].eval()
    statistics = model[6].running_mean.clone()
    prune_model(model, [images()], 0.5)
    assert torch.equal(model[6].running_mean, statistics)
    assert [model.training, model[1].training, model[6].training] == [True, False, True]


def test_pruning_writes_through_to_the_flat_vector():
    model = FlatModel(network())
    masks = prune_model(model.module, [images()], 0.5)
    entry = next(e for e in model.layout.trainable if e.name == "9.weight")
    assert not bool(model.vector[entry.slice][~masks["9.weight"].flatten()].any())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.5}, "sparsity = 1.5: should be within 0 and 1"),
        ({"nm": (5, 4)}, "5:4 sparsity"),
        ({"nm": (0, 0)}, "0:0 sparsity"),
        ({"batches": []}, "at least one calibration batch"),
        ({"batches": [torch.full((2, 4, 10, 9), torch.nan)]}, "not finite"),
    ],
)
def test_impossible_arguments_are_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_model(network(), **{"batches": [images()], **arguments})


def trained_cnn() -> tuple[nn.Module, Tensor]:
    data = load_dataset()
    inputs = (data.x_train[:3000].float() - 73) / 90
    labels = data.y_train[:3000]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(784, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for batch in torch.randperm(len(inputs), generator=generator()).split(50):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[batch]), labels[batch]).backward()
        optimizer.step()
    return model.eval(), inputs


def test_the_error_of_every_layer_of_a_trained_cnn_is_below_magnitudes():
    model, inputs = trained_cnn()
    for index in (0, 4, 7, 10, 12):
        for sparsity, nm in ((0.5, None), (0.7, None), (0.0, (2, 4))):
            if nm and model[index].weight.shape[1] == 1:
                continue  # one input channel: 2:4 keeps it, nothing is pruned
            errors = []
            for method in ("sparsegpt", "magnitude"):
                layer = copy.deepcopy(model[index])
                hessian = layer_hessian(model, model[index], [inputs[:256]], nm[1] if nm else 1)
                before = weight_matrix(layer, nm[1] if nm else 1)
                kept = round((1 - sparsity) * layer.weight.numel())
                prune_layer(layer, hessian if method == "sparsegpt" else None, kept, nm)
                errors.append(output_error(before, weight_matrix(layer, nm[1] if nm else 1), hessian))
            assert errors[0] < errors[1], (index, sparsity, nm)


def test_recalibrated_batchnorm_holds_the_mean_over_all_batches_by_size_and_nothing_else_changes():
    model = nn.Sequential(
        nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm2d(4, track_running_stats=False)
    )
    model[1].eval()
    before = copy.deepcopy(model)
    batches = [images(size, size) * size + size for size in (16, 16, 3, 1)]
    recalibrate_batchnorm(model, batches)
    means, variances = zip(*((b.mean((0, 2, 3)), b.var((0, 2, 3))) for b in batches), strict=True)
    torch.testing.assert_close(model[0].running_mean, (16 * means[0] + 16 * means[1] + 3 * means[2]) / 35)
    torch.testing.assert_close(model[0].running_var, (16 * variances[0] + 16 * variances[1] + 3 * variances[2]) / 35)
    assert model[0].momentum == 0.3
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert torch.equal(model[0].weight, before[0].weight)


def test_a_last_batch_of_one_sample_is_left_out():
    model = nn.BatchNorm1d(3)
    batch = torch.randn(8, 3, generator=generator())
    recalibrate_batchnorm(model, [batch, torch.randn(1, 3)])
    torch.testing.assert_close(model.running_mean, batch.mean(0))


def test_a_model_whose_pruning_is_refused_is_in_training_mode_again():
    model = network().train()
    with pytest.raises(ValueError, match="not finite"):
        prune_model(model, [images() * torch.inf], 0.5)
    assert all(module.training for module in model.modules())
