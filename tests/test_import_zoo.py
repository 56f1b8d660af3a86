"""Every network of the zoo comes through the importer and computes what torch computes."""

from __future__ import annotations

import pytest
from import_check import check, ops, randomise
from torch import nn

from cosparse.bench import zoo
from cosparse.bench.zoo import convnext
from cosparse.bench.zoo.densenet import DenseNet
from cosparse.bench.zoo.resnet import Bottleneck
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


def shortened(model: nn.Module) -> nn.Module:
    """Two blocks of each stage: those after the second repeat it, and torch.export takes long to follow them."""
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            if all(isinstance(block, convnext.Block | Bottleneck) for block in module):
                del module[2:]
            # Blocks of other networks may differ in a stage; `repr` says all that they are made from but their weights.
            made_from = [repr(block) for block in module]
            for i in reversed(range(2, len(made_from))):
                if made_from[i] == made_from[i - 1] and list(module[i].children()):
                    del module[i]
    return model


def test_every_network_is_covered() -> None:
    assert set(zoo.names()) == set(SIZES) | SAME_CODE


@pytest.mark.parametrize("name", SIZES)
def test_the_graph_computes_what_torch_computes(name: str) -> None:
    size, other = SIZES[name]
    # DenseNet-121 is this with 58 layers. ResNet-50 stays as deep as it is, for the sake of rounding.
    model = DenseNet((2, 3, 2, 2), 7) if name == "densenet121" else zoo.build(name, num_classes=7)
    model = model if name == "resnet50" else shortened(model)
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
