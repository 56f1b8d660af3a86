"""The network that a user gives: wrappers are taken off, what cannot be taken is refused in one sentence, and all of it stays as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn

from cosparse.compress import NNCS, Budget, count, export, impose, masks
from cosparse.compress.given import copied, evaluating
from cosparse.compress.importer import from_torch
from cosparse.engine import artifact
from cosparse.errors import Error, UnsupportedError

X = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))
BUDGET = Budget(density=0.3)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))


class Any(nn.Module):
    """Takes whatever its network takes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, *inputs: Tensor, **options: Tensor) -> Tensor:
        return self.inner(*inputs, **options)


class Sum(nn.Module):
    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return x + others[0] * others[1]


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(nn.DataParallel(model), backend="eager")])
def test_wrappers_are_taken_off_and_layers_keep_their_names(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    names = ["0", "2", "4"]
    assert [layer.name for layer in count(wrap(net()), X).layers] == names
    assert [node.name for node in from_torch(wrap(net()), X).nodes if node.op == "conv"] == names
    report = export(impose(wrap(net()), BUDGET, X), X, tmp_path / "net.cosparse")
    assert [layer.name for layer in report.layers] == names
    assert NNCS(wrap(net()), BUDGET, X).choices[0].name == "0"


def test_inputs_that_a_signature_collects_have_a_free_batch() -> None:
    assert from_torch(Any(), X).inputs[0].shape == (None, 3, 10, 10)
    graph = from_torch(Sum(), [X, X, X])
    assert [value.shape for value in graph.inputs] == [(None, 3, 10, 10)] * 3
    assert graph.provenance["import"]["size"] == "free"


class Case(NamedTuple):
    model: Callable[[], nn.Module]
    text: str
    x: Tensor = X


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 4, 3))


REFUSED = {
    "script": Case(lambda: torch.jit.script(net()), "got one of torch.jit; give the module that was scripted or traced"),
    "exported": Case(lambda: torch.export.export(net(), (X,)).module(), "got a program of torch.export; give the module"),
    "meta": Case(on_meta, r"weight 0.weight: expected a tensor in memory, got one on the meta device"),
    "half": Case(lambda: net().half(), r"weight 0.weight: expected float32.*, got torch.float16; model.float\(\)", X.half()),
    "bfloat16": Case(lambda: net().bfloat16(), r"weight 0.weight: expected float32.*, got torch.bfloat16; model.float\(\)", X.bfloat16()),
    "channels": Case(
        net, r"example \[1, 4, 10, 10\]: expected an input that Sequential takes, got RuntimeError: Given", X.repeat(1, 2, 1, 1)[:, :4]
    ),
    "no module": Case(lambda: lambda x: x, "expected a torch.nn.Module, got function"),  # type: ignore[dict-item,return-value]
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    model, text, x = REFUSED[case]
    for use in (lambda m: impose(m, BUDGET, x), lambda m: NNCS(m, BUDGET, x), lambda m: export(m, x, tmp_path / "net.cosparse")):
        with pytest.raises(Error, match=text) as caught:
            use(model())
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_doubles_are_trained_but_not_exported(tmp_path: Path) -> None:
    model, x = impose(net().double(), BUDGET, X.double()), X.double()
    with pytest.raises(Error, match=r"weight 0.weight: expected float32, got torch.float64; model.float\(\), and a float32 example"):
        export(model, x, tmp_path / "net.cosparse")
    with pytest.raises(Error, match=r"example, input 0: expected float32, as the model's weights are, got torch.float64"):
        export(model.float(), x, tmp_path / "net.cosparse")
    export(model.float(), X, tmp_path / "net.cosparse")


def test_weights_that_hooks_compute_are_copied_and_left_dense(tmp_path: Path) -> None:
    model = net()
    torch.nn.utils.prune.l1_unstructured(model[2], "weight", 0.5)
    with torch.no_grad():
        wanted = model(X)
    imposed = impose(model, BUDGET, X)
    call = "torch.nn.utils.prune.remove(m, 'weight')"
    assert masks.why_dense(imposed[2]) == f"its weight is computed from other parameters: {call} makes it plain"
    assert masks.mask_of(imposed[4]) is not None
    export(imposed, X, tmp_path / "net.cosparse")
    with torch.no_grad():
        assert torch.equal(copied(model)(X), wanted)
        assert torch.equal(model(X), wanted)


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = net()
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(Error, match=r"model Sequential: expected a module that copy.deepcopy can copy, got TypeError: cannot pickle"):
        impose(model, BUDGET, X)


class Standardised(nn.Conv2d):
    """Another weight than its own goes into the convolution."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Named(nn.Conv2d):
    """Nothing but a name."""


def test_layers_with_a_forward_of_their_own_are_left_dense(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), Standardised(16, 16, 3), Named(16, 16, 3))
    imposed = impose(model, BUDGET, X)
    assert masks.why_dense(imposed[1]) == "Standardised has a forward of its own"
    assert masks.mask_of(imposed[2]) is not None
    export(imposed, X, tmp_path / "net.cosparse")
    assert artifact.read(tmp_path / "net.cosparse").node("2").attrs["format"] == "block"
    with pytest.raises(Error, match=r"layers\['1'\]: expected a layer that can carry a mask, got Standardised has a forward of its own"):
        impose(model, BUDGET, X, layers={"1": "dct"})


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


def test_a_network_none_of_whose_layers_runs_has_nothing_to_mask() -> None:
    with pytest.raises(Error, match=r"got none: 1 of 1 layers are left dense: never runs on the example \(1: conv\)"):
        impose(Unused(), BUDGET, X)


class Counting(nn.Module):
    """Writes to its buffers even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(1))
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.last + 1
        return self.conv(x)


def test_mode_gradients_and_buffers_stay() -> None:
    model = Counting().train()
    model(X).sum().backward()
    gradient = model.conv.weight.grad
    last = model.last
    with evaluating(model):
        assert not model.conv.training
        assert not model(X).requires_grad
    assert all(module.training for module in model.modules())
    assert model.conv.weight.grad is gradient
    assert float(model.calls) == float(model.last) == 1
    assert model.last is last


def test_training_starts_with_what_can_be_exported() -> None:
    """The refusal comes before any batch is asked for."""
    model = nn.Sequential(net(), nn.Threshold(0.1, 0), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nncs = NNCS(model, BUDGET, X)

    class Loader:
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise AssertionError("a batch was asked for")

        def __len__(self) -> int:
            return 1

    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UnsupportedError, match=r"aten.threshold.default in '1'"):
        nncs.fit(Loader(), epochs=(1, 1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
