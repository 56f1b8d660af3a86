"""`cosparse compress` and `cosparse export` on a network from a user's own file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_nets
from image_sets import noise, write_masks

import cosparse
from cosparse.cli import run
from cosparse.engine import artifact


def compress(script: Path, data: Path, out: Path, *options: str) -> list[str]:
    fixed = ["compress", f"{script}:complete", "--data", str(data), "--out", str(out), "--threads", "1", "--no-flip", "--batch", "50"]
    return [*fixed, "--flops", "0.4", "--params", "0.5", *options]


def test_compress_meets_the_budgets_and_records_what_it_did(script, data, tmp_path, capsys) -> None:
    out = tmp_path / "small.cosparse"
    assert run(compress(script, data, out, "--epochs", "0,2", "--json", "-")) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["flops_reduction"] >= 0.4
    assert result["params_reduction"] >= 0.5
    assert result["bytes"] == out.stat().st_size
    assert len(result["epochs"]) == 2
    metadata = cosparse.load(out).metadata
    assert metadata["preprocessing"]["size"] == [8, 8]
    provenance = metadata["provenance"]
    assert provenance["method"] == "nncs"
    assert provenance["settings"]["budget"] == {"flops": 0.4, "params": 0.5}
    assert provenance["accuracy"]["top1"] == result["top1"]
    assert provenance["accuracy"]["dense_top1"] == result["dense_top1"]

    assert run(["eval", str(out), "--data", str(data), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == result["top1"]


def test_resume_ends_with_the_same_network(script, data, tmp_path, monkeypatch) -> None:
    whole, parts = tmp_path / "whole.cosparse", tmp_path / "parts.cosparse"
    assert run(compress(script, data, whole, "--epochs", "1,2")) == 0

    from cosparse.compress.loop import Loop

    save = Loop.save

    def save_then_stop(self: Loop) -> None:
        save(self)
        if self.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "save", save_then_stop)
        assert run(compress(script, data, parts, "--epochs", "1,2")) == 130
    assert not parts.exists()
    assert run(compress(script, data, parts, "--epochs", "1,2", "--resume")) == 0
    assert _weights(parts) == _weights(whole)


def test_step_one_is_chosen_and_recorded(script, data, tmp_path) -> None:
    out = tmp_path / "measured.cosparse"
    chosen = ["--recovery", "fista", "--measurement", "bernoulli", "--measure-share", "0.8", "--schedule", "cosine"]
    assert run(compress(script, data, out, "--epochs", "3,1", *chosen)) == 0
    settings = artifact.read(out).provenance["settings"]
    assert [settings[name] for name in ("recovery", "measurement", "measure_share", "schedule")] == ["fista", "bernoulli", 0.8, "cosine"]


def test_step_one_is_checked_before_anything_is_read(script, data, tmp_path, capsys) -> None:
    assert run(compress(script, data / "none", tmp_path / "x.cosparse", "--measurement", "gaussian")) == 2
    assert "as the closed form is that of the identity, got 'closed'" in capsys.readouterr().err


def _weights(path: Path) -> dict[tuple[str, str], bytes]:
    return {(node.name, role): array.tobytes() for node in artifact.read(path).nodes for role, array in node.tensors.items()}


def test_compress_wants_the_preprocessing(script, data, tmp_path, capsys) -> None:
    arguments = compress(script, data, tmp_path / "x.cosparse")
    arguments[1] = f"{script}:with_example"
    assert run(arguments) == 2
    assert "return (module, example, preprocessing) from the factory" in capsys.readouterr().err


def test_compress_asks_for_the_folder_before_it_trains(script, data, tmp_path, capsys) -> None:
    assert run(compress(script, data, tmp_path / "none" / "x.cosparse")) == 2
    assert "expected an existing folder" in capsys.readouterr().err


def test_a_budget_that_cannot_be_met_says_what_can(script, data, tmp_path, capsys) -> None:
    assert run(compress(script, data, tmp_path / "x.cosparse", "--flops", "0.99")) == 2
    assert "budget: expected at most" in capsys.readouterr().err


@pytest.mark.parametrize(("factory", "options"), [("with_example", []), ("complete", []), ("alone", ["--size", "3,8,8"])])
def test_export_takes_every_form_of_factory(factory, options, script, tmp_path, capsys) -> None:
    out = tmp_path / "net.cosparse"
    assert run(["export", f"{script}:{factory}", *options, "--out", str(out), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bytes"] == out.stat().st_size
    assert result["flops_reduction"] == 0
    assert cosparse.load(out)(np.zeros((2, 3, 8, 8), np.float32)).shape == (2, 4)


def test_fcn_of_the_zoo_has_the_classes_asked_for_and_says_the_same_in_torch(tmp_path, capsys, monkeypatch) -> None:
    """Of every pixel, upsampling included: eight times from the last layer to the image, whose sides eight does not divide."""
    short_nets.add(monkeypatch)
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 12, (45, 60), dtype=np.uint8) for _ in range(2)]
    names = " ".join([*(f"class{number}" for number in range(11)), "Unlabelled"])
    write_masks(tmp_path / "a_test.parquet", [noise(45, 60, number) for number in range(2)], labels, names)
    network, out = ["zoo:short_fcn", "--classes", "11"], tmp_path / "fcn.cosparse"
    assert run(["export", *network, "--size", "3,45,60", "--out", str(out)]) == 0
    engine = cosparse.load(out)
    assert engine.outputs[0].shape == (None, 11, 45, 60)
    assert engine.metadata["preprocessing"]["size"] == [45, 60]
    capsys.readouterr()
    assert run(["eval", str(out), "--data", str(tmp_path), "--workers", "0", "--model", *network, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["torch"]["same_pixels"] >= 0.9999
    assert (result["torch"]["differ"], result["torch"]["passed"]) == (0, True)
    for key in ("miou", "pixel_accuracy"):
        assert result[key] == pytest.approx(result["torch"][key], abs=0.02)  # ties may go either way


def test_classes_are_of_zoo_networks_alone(script, tmp_path, capsys) -> None:
    assert run(["export", f"{script}:complete", "--classes", "3", "--out", str(tmp_path / "net.cosparse")]) == 2
    assert "--classes: expected a network of the zoo, got " in capsys.readouterr().err


def test_export_imposes_masks(script, tmp_path, capsys) -> None:
    out = tmp_path / "net.cosparse"
    assert run(["export", f"{script}:complete", "--impose-flops", "0.5", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "dct 8x1" in shown
    provenance = cosparse.load(out).metadata["provenance"]
    assert provenance["method"] == "imposed"
    assert provenance["flops_reduction"] >= 0.5
    assert any(node.attrs.get("format") == "block" for node in artifact.read(out).nodes)


def test_export_loads_weights_by_name(script, tmp_path, capsys) -> None:
    import importlib.util

    from safetensors.torch import save_file

    spec = importlib.util.spec_from_file_location("my_net", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights = {name: value + 1 for name, value in module.net().state_dict().items() if value.is_floating_point()}
    save_file(weights, tmp_path / "w.safetensors")
    out = tmp_path / "net.cosparse"
    arguments = ["export", f"{script}:complete", "--weights", str(tmp_path / "w.safetensors"), "--out", str(out)]
    assert run(arguments) == 0
    bias = next(node for node in artifact.read(out).nodes if node.op == "linear").tensors["bias"]
    np.testing.assert_array_equal(bias, weights["7.bias"].numpy())
    save_file({"other": weights["7.bias"]}, tmp_path / "w.safetensors")
    assert run(arguments) == 2
    assert "w.safetensors: expected the" in capsys.readouterr().err


def table(script: Path, folder: Path) -> Path:
    """A latency table for the script's network, made up: a kept coefficient takes as long as a dense one."""
    import importlib.util

    from cosparse.compress import count
    from cosparse.compress.latency import LatencyTable, LayerTime
    from cosparse.compress.layers import choose

    spec = importlib.util.spec_from_file_location("my_net", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.net()
    layers = {}
    for choice in choose(model, count(model, module.example())):
        if choice.transform is not None:
            us = choice.module.weight.numel() * 1e-3
            layers[choice.name] = LayerTime(choice.count.shape, choice.count.pixels, str(choice.transform), choice.block, us, 0, 0, 1e-3, 0)
    path = folder / "T.json"
    path.write_text(LatencyTable("net", ((1, 3, 8, 8),), 1, "avx2", "float32", "cpu", "0", 1.0, layers).to_json())
    return path


def test_compress_takes_every_way_to_choose_masks(script, data, tmp_path, capsys) -> None:
    pytest.importorskip("torch_pruning")
    out = tmp_path / "net.cosparse"
    options = ["--latency-table", str(table(script, tmp_path)), "--latency", "0.3", "--score", "fisher", "--group", "--regrow", "0.1"]
    assert run(compress(script, data, out, "--epochs", "1,1", *options)) == 0
    settings = cosparse.load(out).metadata["provenance"]["settings"]
    assert settings["budget"]["latency"]["share"] == 0.3
    assert (settings["score"], settings["group"], settings["regrow"]["share"]) == ("fisher", True, 0.1)


def test_export_groups_and_bounds_time(script, tmp_path, capsys) -> None:
    pytest.importorskip("torch_pruning")
    out = tmp_path / "net.cosparse"
    timed = ["--latency-table", str(table(script, tmp_path)), "--impose-latency", "0.5", "--group"]
    assert run(["export", f"{script}:complete", "--out", str(out), *timed]) == 0
    provenance = cosparse.load(out).metadata["provenance"]
    assert provenance["group"] is True
    assert provenance["budget"]["latency"]["table"] == "T.json"


def test_groups_of_rows_are_kept_and_recorded(script, data, tmp_path, capsys) -> None:
    from cosparse.kernels.gpu.groups import coefficient_groups

    out = tmp_path / "net.cosparse"
    options = ["--block", "4", "--group-rows", "16", "--slack", "1.25"]
    assert run(compress(script, data, out, "--epochs", "1,1", *options)) == 0
    capsys.readouterr()
    assert run(["inspect", str(out), "--json", "-"]) == 0
    provenance = json.loads(capsys.readouterr().out)["provenance"]
    assert (provenance["settings"]["group_rows"], provenance["settings"]["slack"]) == (16, 1.25)
    node = artifact.read(out).node("3")
    assert node.attrs["block"] == 4
    assert provenance["opened"] == {"3": pytest.approx(coefficient_groups(node, 16).density)}


def test_export_imposes_groups_of_rows(script, tmp_path, capsys) -> None:
    out = tmp_path / "net.cosparse"
    arguments = ["export", f"{script}:complete", "--out", str(out), "--impose-flops", "0.5", "--group-rows", "32"]
    assert run(arguments) == 0
    assert "dct 8x1 in 32" in capsys.readouterr().out
    provenance = cosparse.load(out).metadata["provenance"]
    assert (provenance["group_rows"], provenance["slack"]) == (32, 1.5)
    assert provenance["opened"]["3"] > 0
    assert run([*arguments, "--slack", "0.5"]) == 2
    assert "slack: expected a number from 1" in capsys.readouterr().err


def test_options_that_lack_their_other_half(script, data, tmp_path, capsys) -> None:
    out = tmp_path / "x.cosparse"
    export = ["export", f"{script}:complete", "--out", str(out)]
    for arguments, message in (
        (compress(script, data, out, "--latency", "0.5"), "--latency-table: expected measured times for --latency, got none"),
        ([*export, "--impose-latency", "0.5"], "--latency-table: expected measured times for --impose-latency, got none"),
        ([*export, "--latency-table", str(table(script, tmp_path))], "--impose-latency: expected a bound on the time"),
        ([*export, "--group"], "--group: expected masks to group the filters for, got none"),
        ([*export, "--group-rows", "64"], "--group-rows: expected masks whose blocks to choose so, got none"),
        (compress(script, data, out, "--slack", "2"), "slack: expected group_rows, whose open columns it bounds, got none"),
    ):
        assert run(arguments) == 2
        assert message in capsys.readouterr().err
