"""What export says about models that cannot be taken: the next step, the place, nothing beside the one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from cosparse.compress import export
from cosparse.compress.importer import from_torch
from cosparse.errors import ShapeError, UnsupportedError

X = torch.zeros(1, 4, 6, 6)


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def decides(y: Tensor) -> Tensor:
    return y if y.sum() > 0 else -y


def text_of(function: Callable[[Tensor], Tensor]) -> str:
    with pytest.raises(UnsupportedError) as caught:
        from_torch(Apply(function), X)
    return str(caught.value)


def test_examples_of_whole_numbers_are_to_be_floats() -> None:
    with pytest.raises(ShapeError, match=r"got torch.uint8 \[1, 4, 6, 6\]; give a float32 example; of pixels, with the values 0..255"):
        from_torch(nn.ReLU(), X.byte())


def test_a_batch_that_code_fixes_says_what_to_write() -> None:
    step = "expected a batch of any size, got code that fixes it to 2; x.size(0) or flatten(1) in place of len(x) or of a number"
    assert text_of(lambda y: y.reshape(len(y), -1)).endswith(step)


def test_a_branch_on_values_is_one_sentence_with_its_place(capfd: pytest.CaptureFixture[str]) -> None:
    line = decides.__code__.co_firstlineno + 1
    found = f"expected a model that torch.export can follow, got code that decides by computed values, test_import_texts.py:{line}"
    assert text_of(decides).endswith(found)
    assert capfd.readouterr() == ("", "")


def test_what_a_model_prints_while_it_is_followed_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    def prints(y: Tensor) -> Tensor:
        warnings.warn("of the model's own", stacklevel=1)
        return y.relu()

    with pytest.warns(UserWarning, match="of the model's own"):
        from_torch(Apply(prints), X)


def test_orders_that_no_operator_gives_are_named_in_words() -> None:
    text = text_of(lambda y: y.view(-1, 2, 2, 3, 2, 3, 2).permute(0, 6, 2, 4, 3, 1, 5).reshape(-1, 4, 6, 6).relu() + y)
    assert "an order of dimensions that no operator gives, to shape [N, 4, 6, 6], made by aten.reshape.default in the model's own" in text


def test_quantized_layers_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    match = r"expected layers with float weights, got quantized ones \(1\); give the float model: load\(dtype='int8', calibration=x\)"
    with pytest.raises(UnsupportedError, match=match):
        from_torch(model, X)


def test_torchs_warnings_about_its_own_code_and_computed_weights_are_not_shown(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), Apply(lambda y: y[:, :2].relu_()))
    torch.nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(model, torch.randn(1, 4, 6, 6), tmp_path / "net.cosparse")
