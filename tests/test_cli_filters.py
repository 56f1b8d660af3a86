"""`cosparse compress --method ssr-pso` and `ssr-pso+nncs` on a network from a user's own file, and what becomes of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosparse
from cosparse.cli import compress_filters, run
from cosparse.engine import artifact

pytest.importorskip("torch_pruning")

SEARCH = ["--evaluations", "6", "--multiple", "4", "--batch", "50", "--threads", "1", "--no-flip"]


def compress(script: Path, data: Path, out: Path, method: str, *options: str) -> list[str]:
    return ["compress", f"{script}:complete", "--data", str(data), "--out", str(out), "--method", method, *SEARCH, *options]


def weights(path: Path) -> dict[str, list]:
    return {node.name: node.tensors["values"].tolist() for node in artifact.read(path).nodes if "values" in node.tensors}


def test_filters_go_the_rest_is_trained_and_everything_is_recorded(script, data, tmp_path, capsys) -> None:
    out, pictures = tmp_path / "small.cosparse", tmp_path / "pictures"
    assert run(compress(script, data, out, "ssr-pso", "--flops", "0.4", "--epochs", "0,2", "--json", "-", "--pictures", str(pictures))) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert 0.4 <= result["flops_reduction"] < 0.6
    assert result["filters"]["flops_reduction"] == result["flops_reduction"]
    assert result["masks"]["flops_reduction"] == 0
    provenance = cosparse.load(out).metadata["provenance"]
    assert provenance["method"] == "ssr-pso"
    assert provenance["flops_reduction"] == result["flops_reduction"]
    assert set(provenance["filters"]["groups"]) == {"0", "3"}
    assert provenance["settings"]["search"] == "pso"
    assert provenance["accuracy"]["top1"] == result["top1"]
    assert {path.name for path in pictures.iterdir()} == {"training.png", "widths.png", "search.png"}
    assert run(["eval", str(out), "--data", str(data), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == result["top1"]

    again, onnx = tmp_path / "again.cosparse", tmp_path / "again.onnx"
    kept = ["--weights", str(out.with_suffix(".weights.safetensors")), "--onnx", str(onnx)]
    assert run(["export", f"{script}:complete", "--out", str(again), *kept]) == 0
    assert weights(again) == weights(out)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    runtime = pytest.importorskip("onnxruntime").InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(runtime.run(None, {"in0": x})[0], cosparse.load(out)(x), rtol=1e-4, atol=1e-5)


def test_filters_then_masks_and_both_shares_are_told(script, data, tmp_path, capsys) -> None:
    out = tmp_path / "both.cosparse"
    assert (
        run(compress(script, data, out, "ssr-pso+nncs", "--flops", "0.6", "--filters-flops", "0.3", "--epochs", "1,1", "--block", "4")) == 0
    )
    shown = capsys.readouterr().out
    assert "  of which filters" in shown
    assert "  and masks" in shown
    provenance = cosparse.load(out).metadata["provenance"]
    filters, masks = provenance["filters"]["flops_reduction"], provenance["masks"]["flops_reduction"]
    assert filters >= 0.3
    assert masks > 0
    assert provenance["flops_reduction"] == pytest.approx(1 - (1 - filters) * (1 - masks))
    assert provenance["flops_reduction"] >= 0.6
    assert any(node.attrs.get("format") == "block" for node in artifact.read(out).nodes)


def test_a_run_that_was_stopped_goes_on(script, data, tmp_path, monkeypatch) -> None:
    whole, parts = tmp_path / "whole.cosparse", tmp_path / "parts.cosparse"
    options = ["--flops", "0.4", "--epochs", "1,1"]
    assert run(compress(script, data, whole, "ssr-pso", *options)) == 0

    from cosparse.compress.loop import Loop

    def stops(self: Loop) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "save", stops)
        assert run(compress(script, data, parts, "ssr-pso", *options)) == 130
    assert parts.with_suffix(".start.safetensors").exists()
    assert run(compress(script, data, parts, "ssr-pso", *options, "--resume")) == 0
    assert weights(parts) == weights(whole)
    assert run(compress(script, data, parts, "ssr-pso", "--flops", "0.3", "--epochs", "1,1", "--resume")) == 2


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("guess", ["--flops", "0.4"], "--method: expected one of nncs, ssr-pso, ssr-pso+nncs, got 'guess'"),
        ("nncs", ["--flops", "0.4"], "--evaluations: expected an option of --method nncs"),
        ("ssr-pso", ["--flops", "0.4", "--transform", "dct"], "--transform: expected an option of --method ssr-pso"),
        ("ssr-pso", ["--flops", "0.4", "--filters-flops", "0.2"], "--filters-flops: expected an option of --method ssr-pso"),
        ("ssr-pso+nncs", ["--params", "0.4"], "--flops, which is shared between filters and masks"),
        ("ssr-pso+nncs", ["--flops", "0.4", "--filters-flops", "0.4"], "--filters-flops: expected a share between 0 and --flops 0.4"),
        ("ssr-pso", ["--flops", "0.4", "--importance", "guess"], "importance: expected one of self-representation"),
        ("ssr-pso", ["--flops", "0.99"], "budget: expected at most flops -"),
    ],
)
def test_options_that_do_not_fit_are_refused(script, data, tmp_path, capsys, method, options, message) -> None:
    assert run(compress(script, data, tmp_path / "x.cosparse", method, *options)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x.cosparse").exists()


def test_about_a_thousand_images_are_held_out() -> None:
    assert compress_filters.validation_share(50_000, 0.02) == 0.02
    assert compress_filters.validation_share(20_000, 0.02) == 0.05
    assert compress_filters.validation_share(367, 0.02) == 0.1
