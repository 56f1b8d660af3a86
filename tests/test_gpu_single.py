"""Single layers' candidates, run on the CPU: kernels in CUDA C++ in the emulation, Triton's in its interpreter. Their times need a GPU."""

from __future__ import annotations

import math

import pytest
import typer

torch = pytest.importorskip("torch")
pytest.importorskip("triton")


from cosparse.bench.gpu import single  # noqa: E402
from cosparse.bench.layer_net import Layer  # noqa: E402


def test_every_form_of_a_3x3_layer_agrees_with_the_library(on_host: str) -> None:
    case = single.squares(Layer(130, 16, 6, 3), 2, on_host)
    found = {name: error for name, error, why in single.differences(case) if not why}
    assert {name.partition(" ")[0] for name in found} == {"basis", "shared"}
    assert len(found) == len(case.candidates) > 8
    assert max(found.values()) < single.LARGEST_ERROR


def test_every_tile_of_a_dense_product_agrees_with_the_library() -> None:
    case = single.points(Layer(130, 20, 5, 1), 2, "cpu")
    found = {name: error for name, error, why in single.differences(case) if not why}
    assert {name.partition(" ")[0] for name in found} == {"rows64", "rows128"}
    assert len(found) == len(case.candidates) > 20
    assert max(found.values()) < single.LARGEST_ERROR


def test_a_candidate_that_fails_or_is_wrong_is_told_apart() -> None:
    case = single.points(Layer(3, 4, 2, 1), 1, "cpu")

    def fails() -> None:
        raise ValueError("too large\nfor it")

    told = list(single.differences(single.Case(case.out, {"fails": fails, "writes nothing": lambda: None}, case.library, case.want)))
    assert told[0] == ("fails", None, "too large")
    name, error, why = told[1]
    assert (name, why) == ("writes nothing", "")
    assert error is not None
    assert math.isnan(error)


@pytest.mark.parametrize(("kind", "batches", "named"), [("5x5", "1", "3x3 or rows"), ("3x3", "one", "one"), ("rows", "1", "CUDA")])
def test_what_is_refused(kind: str, batches: str, named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(typer.Exit) as stopped:
        single.main(kind, batches, 0.05)
    assert stopped.value.exit_code == 2
    assert named in capsys.readouterr().err
