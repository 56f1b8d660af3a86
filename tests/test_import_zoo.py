"""Every network of the zoo comes through the importer and computes what torch computes."""

from __future__ import annotations

import re

import pytest
import torch
from import_check import check, ops, randomise
from torch import nn

from cosparse.bench import zoo
from cosparse.bench.zoo import convnext, inception, mobilenet, mobilenet_v3, resnet, resnet_cifar
from cosparse.bench.zoo.densenet import DenseNet
from cosparse.bench.zoo.googlenet import Inception
from cosparse.bench.zoo.shufflenet import ShuffleUnit
from cosparse.engine.graph import Node

# Example size of each, the smallest that the network allows; a second size where it runs at any.
SIZES: dict[str, tuple[tuple[int, int], tuple[int, int] | None]] = {
    "resnet20": ((32, 32), (20, 36)),
    "vgg16": ((32, 32), None),
    "resnet18": ((64, 64), (75, 50)),
    "resnet50": ((64, 64), (75, 50)),
    "densenet121": ((64, 64), (70, 64)),
    "squeezenet1_1": ((50, 50), (41, 63)),
    "mobilenet_v2": ((64, 64), (70, 41)),
    "mobilenet_v3_large": ((64, 64), (70, 41)),
    "efficientnet_b0": ((64, 64), (70, 41)),
    "shufflenet_v2_x1_0": ((64, 64), (70, 41)),
    "googlenet": ((64, 64), (70, 49)),
    "inception_v3": ((107, 107), (80, 131)),
    "convnext_tiny": ((64, 64), (70, 33)),
    "fcn_resnet50": ((40, 40), (33, 47)),
    "deeplabv3_resnet50": ((40, 40), (33, 47)),
    "unet": ((32, 32), (16, 48)),
}
# The same code with other depths and widths.
SAME_CODE = {"resnet32", "resnet44", "resnet56", "resnet110", "resnet34", "resnet101", "mobilenet_v1", "mobilenet_v3_small"}
BLOCKS = (
    convnext.Block,
    inception.InceptionA,
    inception.InceptionC,
    inception.InceptionE,
    Inception,
    mobilenet.InvertedResidual,
    mobilenet_v3.InvertedResidual,
    resnet.BasicBlock,
    resnet.Bottleneck,
    resnet_cifar.Block,
    ShuffleUnit,
)


def kind(block: nn.Module) -> str:
    """All that a block is made from but its weights and the number of its channels."""
    widths = r"(?<=Conv2d\()\d+, \d+|(?<=BatchNorm2d\()\d+|(?<=LayerNorm\(\()\d+|groups=\d+|_features=\d+"
    return f"{getattr(block, 'shortcut', None)} {re.sub(widths, '', repr(block))}"


def shortened(model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Without blocks that give the shape that they take and are like one of those before, of which three stay in any case.

    torch.export takes long to follow them, and they repeat at another width what the others are checked for.
    """
    passes: set[nn.Module] = set()
    blocks = [(name, block) for name, block in model.named_modules() if isinstance(block, BLOCKS)]
    hooks = [block.register_forward_hook(lambda block, x, y: passes.add(block) if x[0].shape == y.shape else None) for _, block in blocks]
    with torch.no_grad():
        model(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    for i, (name, block) in enumerate(blocks):
        if i >= 3 and block in passes and kind(block) in {kind(earlier) for _, earlier in blocks[:i]}:
            model.set_submodule(name, nn.Identity())
    return model


def test_every_network_is_covered() -> None:
    assert set(zoo.names()) == set(SIZES) | SAME_CODE


@pytest.mark.parametrize("name", SIZES)
def test_the_graph_computes_what_torch_computes(name: str) -> None:
    size, other = SIZES[name]
    # DenseNet-121 is this with 58 layers. ResNet-50 stays as deep as it is, for the sake of rounding.
    model = DenseNet((1, 3, 1, 1), 7) if name == "densenet121" else zoo.build(name, num_classes=7)
    model = model if name == "resnet50" else shortened(model.eval(), size)
    graph = check(randomise(model), (1, 3, *size), batches=(1,) if other else (1, 3), sizes=[other] if other else [])
    assert graph.provenance["import"]["size"] == "free"
    assert graph.inputs[0].shape == (None, 3, *size)
    assert "permute" not in ops(graph)


def weighted(name: str) -> list[Node]:
    graph = check(zoo.build(name), (1, 3, 32, 32), batches=(1,))
    return [node for node in graph.nodes if node.op in ("conv", "linear")]


def test_nodes_bear_the_modules_names_and_batch_norm_is_gone() -> None:
    nodes = weighted("resnet20")
    assert [node.name for node in nodes][:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert nodes[-1].name == "linear"
    assert all("bias" in node.tensors and node.tensors["values"].dtype == "float32" for node in nodes)
