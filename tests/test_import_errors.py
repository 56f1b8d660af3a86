"""What cannot be imported is named: operator, module, source line; what can, keeps names and modes."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from import_check import check
from torch import Tensor, nn

from cosparse.compress.importer import from_torch
from cosparse.compress.importer.table import HANDLERS
from cosparse.errors import ShapeError, UnsupportedError

X = torch.zeros(1, 4, 6, 6)


class Sorting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.inner = Sorting()

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(torch.erfinv(self.inner(self.conv(x))), (1, 1, 1, 1), mode="circular")
        return y[:, :, 1:-1, 1:-1] + torch.cummax(x, 1)[0] + torch.erfc(x)


def test_all_unsupported_operators_are_named_at_once_with_module_and_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        from_torch(Several(), X, "several")
    text = str(caught.value)
    first = Sorting.forward.__code__.co_firstlineno
    assert f"aten.cumsum.default in 'inner', test_import_errors.py:{first + 1}" in text
    assert "model several" in text
    assert "aten.cummax.default in the model's own forward" in text
    assert "aten.erfc.default" in text
    # An operator without a counterpart is named also where its input has none; whether a form has one then cannot be told.
    assert "aten.erfinv.default" in text
    assert "circular" not in text
    assert text.endswith("; docs/operators.md lists what is supported and what usually takes the place of the rest")


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Sorting(), Sorting(), Sorting())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(self.blocks(x), 1)


def test_what_blocks_repeat_is_listed_once() -> None:
    with pytest.raises(UnsupportedError) as caught:
        from_torch(Repeated(), X)
    own, block = (kind.forward.__code__.co_firstlineno + 1 for kind in (Repeated, Sorting))
    file = "test_import_errors.py"
    first = f"aten.cumsum.default in 'blocks.0', {file}:{block} and 2 more like it"
    assert caught.value.got == f"{first}; aten.cumsum.default in the model's own forward, {file}:{own}"


def test_the_page_of_operators_is_the_importers_table() -> None:
    page = (REPOSITORY / "docs" / "operators.md").read_text(encoding="utf-8")
    supported, refused = (page.split(f"## {title}")[1].split("## ")[0] for title in ("Supported", "Refused"))
    rows = [line.split("|") for line in supported.splitlines() if line.startswith("| ")][1:]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[2])]
    assert sorted(named) == sorted(HANDLERS)
    rows = [line.split("|") for line in refused.splitlines() if line.startswith("| ")][1:]
    partly = {"matmul"}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[2])} & set(HANDLERS) == partly


class Branches(nn.Module):
    """Unsupported code whose result nobody needs."""

    def forward(self, x: Tensor) -> Tensor:
        torch.cumsum(x, 1)
        return x.relu()


def test_dead_branches_do_not_matter() -> None:
    graph = check(Branches(), X.shape)
    assert [node.name for node in graph.nodes] == ["relu"]


class Form(NamedTuple):
    model: nn.Module
    reason: str


class Apply(nn.Module):
    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


FORMS = {
    "circular": Form(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "padding of mode circular"),
    "training dropout": Form(Apply(lambda x: F.dropout(x, 0.5, training=True)), "dropout at inference"),
    "batch statistics": Form(nn.BatchNorm2d(4, track_running_stats=False), "batch norm with the statistics of the batch"),
    "layer norm of all": Form(nn.LayerNorm([4, 6, 6]), "a layer norm over more or other dimensions"),
    "softmax of the batch": Form(nn.Softmax(0), "a softmax over the batch"),
    "images numbered": Form(
        Apply(lambda x: x + torch.arange(x.shape[0], dtype=torch.float32).view(-1, 1, 1, 1)), "a constant that varies over the batch"
    ),
    "part of the batch": Form(Apply(lambda x: x[:1] * x), "a part of the batch"),
    "batches": Form(Apply(lambda x: torch.cat([x, x])), "a concatenation of batches"),
    "comparison": Form(Apply(lambda x: (x > 0) * x), "aten.gt.Scalar"),
    "batch in an output": Form(
        Apply(lambda x: x.flatten()), "output 0: the batch mixed with another axis; cut the network before its head"
    ),
    "batch moved": Form(Apply(lambda x: x.transpose(0, 1)), "the batch mixed with another axis"),
    "constant output": Form(Apply(lambda x: (x, torch.ones(3))), "output 1: a constant"),
    "random": Form(Apply(lambda x: x + torch.rand(1)), "aten.rand.default"),
    "bicubic": Form(Apply(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")), "aten.upsample_bicubic2d.vec"),
    "computed weight": Form(Apply(lambda x: F.conv2d(x, x.mean(0, keepdim=True))), "aten.mean.dim"),
    "one dimension": Form(Apply(lambda x: F.conv_transpose1d(x.flatten(2), torch.ones(4, 2, 3))), "aten.conv_transpose1d"),
    "steep softplus": Form(nn.Softplus(threshold=3), "a softplus with a threshold below 20"),
    "data decides": Form(Apply(lambda x: x if x.sum() > 0 else -x), "a model that torch.export can follow"),
    "fixed batch": Form(Apply(lambda x: x.view(2, -1)), "a batch of any size"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_an_artifact_cannot_hold(form: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        from_torch(FORMS[form].model, X)
    assert FORMS[form].reason in str(caught.value)


@pytest.mark.parametrize("x", [torch.zeros(1, 4, 6), torch.zeros(1, 4, dtype=torch.int64), torch.zeros(0, 4)])
def test_inputs_that_are_no_images_or_rows(x: Tensor) -> None:
    with pytest.raises(ShapeError, match="input 0: expected floating point"):
        from_torch(nn.ReLU(), x)


def test_inputs_that_are_no_tensors() -> None:
    with pytest.raises(ShapeError, match="input 1: expected a tensor, got NoneType"):
        from_torch(nn.ReLU(), [X, None])  # type: ignore[list-item]


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 1)
        self.unused = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.conv(x)
        return {"out": F.interpolate(scores, size=x.shape[2:], mode="bilinear"), "scores": scores, "x again": x}


def test_outputs_of_a_dict_keep_their_keys_and_layers_their_names() -> None:
    graph = check(Heads(), X.shape, sizes=[(3, 8)])
    assert graph.outputs == ("out", "scores", "x again")
    assert [(node.name, node.op) for node in graph.nodes] == [
        ("conv", "conv"),
        ("out", "upsample"),
        ("scores", "reshape"),
        ("x again", "reshape"),
    ]


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(inplace=True)).eval())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    from_torch(model, X)
    assert [module.training for module in model.modules()] == [True, True, True, False, False]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class FixedGrid(nn.Module):
    """Reads its input's height: in PyTorch, other sizes mean other kernels."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, x.shape[2])


def test_sizes_that_an_attribute_depends_on_are_built_in_and_noted() -> None:
    graph = check(FixedGrid(), X.shape)
    assert graph.provenance["import"]["size"] == "the example's, for x's height is 6"


class Cropped(nn.Module):
    """The height of the result is half the width of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : x.shape[3] // 2]


def test_a_bound_that_depends_on_a_size_is_built_in_and_noted() -> None:
    graph = check(Cropped(), X.shape)
    note = graph.provenance["import"]["size"]
    assert note.startswith("the example's, for aten.slice.Tensor in the model's own forward, test_import_errors.py:")
    assert "a slice's bound depends on the input's size" in note
