"""The zoo: sizes as published, weights that load by key, the same network for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cosparse.bench import zoo
from cosparse.compress import Budget, impose
from cosparse.errors import Error

# As published with torchvision, without auxiliary classifiers; CIFAR ResNets as with their weights.
PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "vgg16": 14_728_266,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "densenet121": 7_978_856,
    "squeezenet1_1": 1_235_496,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "shufflenet_v2_x1_0": 2_278_604,
    "googlenet": 6_624_904,
    "inception_v3": 23_834_568,
    "convnext_tiny": 28_589_128,
    "fcn_resnet50": 32_957_013,
    "deeplabv3_resnet50": 39_638_869,
    "unet": 7_763_371,
}
# One key from the depths of each, as torchvision has it.
KEYS = {
    "resnet18": "layer4.0.downsample.1.running_var",
    "densenet121": "features.denseblock4.denselayer16.norm2.weight",
    "squeezenet1_1": "features.12.expand3x3.weight",
    "mobilenet_v2": "features.17.conv.3.running_mean",
    "mobilenet_v3_large": "features.15.block.2.fc2.bias",
    "mobilenet_v3_small": "classifier.3.weight",
    "efficientnet_b0": "features.7.0.block.2.fc1.weight",
    "shufflenet_v2_x1_0": "stage4.0.branch1.3.weight",
    "googlenet": "inception5b.branch3.1.bn.weight",
    "inception_v3": "Mixed_7c.branch3x3dbl_3b.conv.weight",
    "convnext_tiny": "features.7.2.layer_scale",
    "fcn_resnet50": "backbone.layer4.2.conv3.weight",
    "deeplabv3_resnet50": "classifier.0.convs.4.1.weight",
}


@pytest.mark.parametrize("name", zoo.names())
def test_parameters_and_keys_are_those_published(name: str) -> None:
    with torch.device("meta"):
        model = zoo.TABLE[name].make(zoo.TABLE[name].classes)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    if name in KEYS:
        assert KEYS[name] in model.state_dict()


@pytest.mark.parametrize("name", ["resnet20", "squeezenet1_1", "unet"])
def test_a_network_runs_on_its_example(name: str) -> None:
    x = zoo.example(name, batch=2)
    with torch.no_grad():
        y = zoo.build(name, num_classes=3)(x)
    assert x.shape[2:] == torch.Size(zoo.preprocessing(name)["size"])
    assert y.shape == ((2, 3, *x.shape[2:]) if name == "unet" else (2, 3))
    assert y.isfinite().all()
    assert y.std() > 0


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, other = zoo.resnet20(), zoo.build("resnet20", seed=0), zoo.resnet20(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not a.training
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.conv1.weight, other.conv1.weight)
    assert torch.equal(zoo.example("resnet20"), zoo.example("resnet20"))


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_activations_keep_their_magnitude_without_training(name: str) -> None:
    """And follow the input: also behind masks, once the statistics are taken anew."""
    model, x = zoo.build(name), zoo.example(name, 2)
    masked = impose(model, Budget(flops=0.3), x[:1])
    zoo.settle(masked, name)
    with torch.no_grad():
        for y in (model(x), masked(x)):
            assert 0.1 < y.std() < 30
            assert (y[0] - y[1]).abs().max() > 0.01 * y.abs().max()


def test_preprocessing_is_plain_data() -> None:
    for name in zoo.names():
        entry = zoo.preprocessing(name)
        assert json.loads(json.dumps(entry)) == entry
        assert set(entry) == {"channels", "scale", "mean", "std", "size"}


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(Error, match=r"resnet57.*expected one of .*resnet56"):
        zoo.build("resnet57")
    with pytest.raises(AttributeError):
        zoo.resnet57  # noqa: B018
    assert "resnet56" in dir(zoo)


def test_pretrained_cifar_weights_load(shared_data: Path) -> None:
    for depth in (20, 56):
        model = zoo.build(f"resnet{depth}")
        old = model.linear.weight.clone()
        assert zoo.load_weights(model, shared_data / f"cifar_resnet{depth}_jpeg.safetensors") is model
        assert not torch.equal(model.linear.weight, old)


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    path = tmp_path / "weights.safetensors"
    state = {key: value + 1 for key, value in model.state_dict().items() if key != "2.bias"}
    save_file({**state, "2.weight": torch.zeros(5, 4), "3.weight": torch.zeros(1)}, path)
    before = model[0].weight.clone()
    with pytest.raises(Error, match=r"missing 2.bias; unexpected 3.weight; wrong shape 2.weight \[5, 4\] for \[2, 4\]"):
        zoo.load_weights(model, path)
    assert torch.equal(model[0].weight, before)
    save_file({**state, "2.bias": torch.ones(2), "1.num_batches_tracked": torch.tensor(3)}, path)
    zoo.load_weights(model, path)
    assert torch.equal(model[0].weight, before + 1)
