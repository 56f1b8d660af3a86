"""Measuring layers at load, and the cache that keeps what was measured."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import assert_close
from engines import EPS, graph_of
from nodes import conv

import cosparse
from cosparse.engine import Engine, artifact
from cosparse.kernels import reference


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path / "a folder" / "cache"))
    return tmp_path / "a folder" / "cache"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    first = conv(rng, 32, 16, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=8, density=0.3)
    path = tmp_path / "net.cosparse"
    artifact.write(path, graph_of([first], {"x": (16, 12, 12)}))
    return path


def load(path: Path, **options: Any) -> Engine:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return cosparse.load(path, threads=2, **options)


def content(cache: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = cache.glob("*")
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_the_second_load_measures_nothing(cache: Path, network: Path) -> None:
    assert load(network)._native.measured == 1
    path, stored = content(cache)
    before = path.read_bytes()
    assert load(network)._native.measured == 0
    assert path.read_bytes() == before
    (layer,) = stored["layers"].values()
    assert {name.split("/")[0] for name in layer["us"]} == {"cosparse", "spatial", "dense", "winograd"}
    assert all(us > 0 for us in layer["us"].values())


def test_the_plan_tells_what_was_measured(cache: Path, network: Path) -> None:
    (row,) = load(network).plan
    assert "measured: cosparse" in row.why
    assert "dense" in row.why
    assert "measured" not in next(iter(load(network, tune=False).plan)).why


@pytest.mark.parametrize("form", ["cosparse", "spatial", "dense"])  # and winograd: test_engine_winograd.py
@pytest.mark.parametrize("tile", [1, 2, 3])
def test_the_cache_decides_and_every_choice_computes_the_same(cache: Path, network: Path, form: str, tile: int) -> None:
    load(network)
    path, stored = content(cache)
    (layer,) = stored["layers"].values()
    layer["form"], layer["tile"] = form, tile
    path.write_text(json.dumps(stored), encoding="utf-8")
    engine = load(network)
    (row,) = engine.plan
    assert (row.basis_flops > 0) == (form == "cosparse")
    assert row.density == 1 if form == "dense" else row.density < 1
    widest = max(int(k["t"]) for k in cosparse._C.kernels() if k["name"] == row.kernel)
    assert widest <= tile
    x = np.random.default_rng(1).normal(size=(2, 16, 12, 12)).astype(np.float32)
    (want,) = reference.run(artifact.read(network), x)
    gain = float(np.abs(artifact.read(network).nodes[0].tensors["values"]).sum())
    assert_close(engine(x).astype(np.float64), want, terms=16 * 9 + 13, scale=gain * float(np.abs(x).max()), eps=EPS)


def damage_text(path: Path, stored: dict[str, Any]) -> None:
    path.write_bytes(b'{"format": 1, "lay')


def damage_cpu(path: Path, stored: dict[str, Any]) -> None:
    path.write_text(json.dumps(stored | {"cpu": "another one"}), encoding="utf-8")


def damage_kernels(path: Path, stored: dict[str, Any]) -> None:
    path.write_text(json.dumps(stored | {"kernels": "0"}), encoding="utf-8")


def damage_form(path: Path, stored: dict[str, Any]) -> None:
    path.write_text(json.dumps(stored).replace('"form": "', '"form": "un'), encoding="utf-8")


def damage_tile(path: Path, stored: dict[str, Any]) -> None:
    for layer in stored["layers"].values():
        layer["tile"] = 2**40
    path.write_text(json.dumps(stored), encoding="utf-8")


def damage_size(path: Path, stored: dict[str, Any]) -> None:
    path.write_bytes(b" " * (17 << 20))


@pytest.mark.parametrize(
    "damage", [damage_text, damage_cpu, damage_kernels, damage_form, damage_tile, damage_size], ids=lambda f: f.__name__
)
def test_a_cache_of_no_use_is_ignored_with_a_warning_and_replaced(cache: Path, network: Path, damage: Any) -> None:
    load(network)
    path, stored = content(cache)
    damage(path, stored)
    with pytest.warns(RuntimeWarning, match="is ignored"):
        assert cosparse.load(network, threads=2)._native.measured == 1
    assert content(cache)[1]["layers"].keys() == stored["layers"].keys()
    assert load(network)._native.measured == 0


def test_entries_of_other_networks_stay(cache: Path, network: Path, tmp_path: Path) -> None:
    load(network)
    rng = np.random.default_rng(0)
    artifact.write(tmp_path / "other.cosparse", graph_of([conv(rng, 8, 4, (1, 1))], {"x": (4, 5, 5)}))
    load(tmp_path / "other.cosparse")
    assert len(content(cache)[1]["layers"]) == 2


def test_threads_and_dtypes_have_files_of_their_own(cache: Path, network: Path) -> None:
    for threads, dtype in ((1, "float32"), (2, "float32"), (2, "bfloat16")):
        cosparse.load(network, threads=threads, dtype=dtype)
    assert len(list(cache.glob("*.json"))) == 3


def test_without_a_folder_nothing_is_kept(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSPARSE_CACHE", "")
    assert load(network)._native.measured == 1
    assert load(network)._native.cache == ""


def test_a_folder_that_cannot_be_written_is_a_warning(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(RuntimeWarning, match="could not be written"):
        engine = cosparse.load(network, threads=2)
    assert "measured" in next(iter(engine.plan)).why


def test_other_shapes_take_the_rule(cache: Path, network: Path) -> None:
    """What was measured at the example's size says nothing of the tile for another."""
    load(network)
    path, stored = content(cache)
    (layer,) = stored["layers"].values()
    layer["form"], layer["tile"] = "cosparse", 1
    path.write_text(json.dumps(stored), encoding="utf-8")
    engine = load(network)
    assert next(iter(engine.plan_for((1, 16, 12, 12)))).kernel != next(iter(engine.plan_for((1, 16, 40, 40)))).kernel


def test_warmup_measures_the_tiles_of_its_batches(cache: Path, network: Path) -> None:
    engine = load(network)
    assert "at 144 pixels; tile by rule" in next(iter(engine.plan_for((4, 16, 12, 12)))).why
    assert engine.warmup((1, 4))._native.measured == 3  # one image at load, then four by all threads together and two by each
    (row,) = engine.plan_for((4, 16, 12, 12))
    assert "measured: " in row.why
    assert "by rule" not in row.why
    assert "by rule" in next(iter(engine.plan_for((7, 16, 12, 12)))).why
    again = load(network).warmup((1, 4))
    assert again._native.measured == 0
    assert "by rule" not in next(iter(again.plan_for((4, 16, 12, 12)))).why


@pytest.mark.parametrize(("batch", "images"), [("apart", 2), ("together", 4)])
def test_the_tile_that_warmup_finds_is_the_tile_that_runs(cache: Path, network: Path, batch: str, images: int) -> None:
    """And every tile computes the same, to the last bit."""
    x = np.random.default_rng(1).normal(size=(4, 16, 12, 12)).astype(np.float32)
    load(network).warmup((4,))
    path, stored = content(cache)
    (times,) = stored["batches"].values()
    times["apart" if batch == "together" else "together"] = 1e6
    path.write_text(json.dumps(stored), encoding="utf-8")
    want = load(network).warmup((4,))(x)
    (kind,) = (kind for kind in stored["layers"] if " as " in kind and f" n{images} " in kind)
    kernels = set()
    for tile in (1, 2, 3):
        stored["layers"][kind]["tile"] = tile
        path.write_text(json.dumps(stored), encoding="utf-8")
        engine = load(network).warmup((4,))
        kernels.add(next(iter(engine.plan_for((4, 16, 12, 12)))).kernel)
        assert np.array_equal(engine(x), want)
    assert len(kernels) == 3


def test_warmup_measures_other_sizes(cache: Path, network: Path) -> None:
    engine = load(network).warmup_for((2, 16, 9, 20))
    assert engine.ready
    assert "by rule" not in next(iter(engine.plan_for((2, 16, 9, 20)))).why
    with pytest.raises(cosparse.ShapeError, match="channels"):
        engine.warmup_for((2, 15, 9, 20))


def test_what_warmup_kept_is_not_taken_for_a_measurement_of_all_forms(cache: Path, network: Path, tmp_path: Path) -> None:
    """A network whose own size another one was warmed up at still has all its forms timed at load."""
    load(network).warmup_for((1, 16, 10, 10))
    graph = artifact.read(network)
    artifact.write(tmp_path / "smaller.cosparse", graph_of(graph.nodes, {"x": (16, 10, 10)}))
    assert load(tmp_path / "smaller.cosparse")._native.measured == 1


@pytest.mark.parametrize("options", [{"tune": False}, {"tile": 2}, {"poison": True}], ids=str)
def test_warmup_leaves_engines_alone_that_do_not_measure(cache: Path, network: Path, options: dict[str, Any]) -> None:
    engine = load(network, **options).warmup((1, 4))
    assert engine.ready
    assert engine._native.measured == 0
    assert "measured" not in next(iter(engine.plan_for((4, 16, 12, 12)))).why


def test_warmup_beside_calls_and_other_warmups(cache: Path, network: Path) -> None:
    """Answers stay what they were, and each batch is measured once."""
    engine = load(network)
    inputs = {n: np.random.default_rng(n).normal(size=(n, 16, 12, 12)).astype(np.float32) for n in (1, 2, 3)}
    want = {n: engine(x) for n, x in inputs.items()}

    def call(n: int) -> bool:
        return all(np.array_equal(engine(inputs[n]), want[n]) for _ in range(100))

    with ThreadPoolExecutor(8) as threads:
        warm = [threads.submit(engine.warmup, (2, 3)) for _ in range(3)]
        calls = [threads.submit(call, n) for n in (1, 2, 3)]
        assert all(done.result() for done in calls)
        assert all(done.result() is engine for done in warm)
    assert engine._native.measured == 3
    assert all("by rule" not in next(iter(engine.plan_for((n, 16, 12, 12)))).why for n in (1, 2, 3))


def test_warmup_warns_of_a_cache_that_cannot_be_written(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSPARSE_CACHE", "")
    engine = load(network)
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(RuntimeWarning, match="could not be written"):
        engine.warmup((4,))
    assert "by rule" not in next(iter(engine.plan_for((4, 16, 12, 12)))).why


def test_dense_computes_stored_zeros_too(cache: Path, tmp_path: Path) -> None:
    """The baseline of a comparison must not profit from the zeros that it is compared with."""
    node = conv(np.random.default_rng(0), 16, 8, (1, 1))
    node.tensors["values"][:, 2:6] = 0
    path = tmp_path / "zeros.cosparse"
    artifact.write(path, graph_of([node], {"x": (8, 9, 9)}))
    (full,), (cut,) = cosparse.load(path, dense=True).plan, cosparse.load(path, tune=False).plan
    assert (full.density, cut.density) == (1, 0.5)
    x = np.random.default_rng(1).normal(size=(1, 8, 9, 9)).astype(np.float32)
    assert np.array_equal(cosparse.load(path, dense=True)(x), cosparse.load(path, tune=False)(x))
    assert all(key.endswith(" whole") for key in content(cache)[1]["layers"])  # what was measured of all weights counts for nothing else


def test_no_file_moves_int8_to_a_form_that_was_not_calibrated(cache: Path, network: Path) -> None:
    x = np.random.default_rng(1).normal(size=(1, 16, 12, 12)).astype(np.float32)
    before = load(network, dtype="int8", calibration=x)(x)
    path, stored = content(cache)
    for layer in stored["layers"].values():
        layer["form"] = "dense"
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert np.array_equal(load(network, dtype="int8", calibration=x)(x), before)


def test_dense_int8_is_calibrated_as_dense(cache: Path, network: Path) -> None:
    """The steps of DCT maps would be wrong for taps: by the whole range of the coefficients, not by half a step."""
    x = np.random.default_rng(1).normal(size=(1, 16, 12, 12)).astype(np.float32)
    exact = load(network)(x)
    errors = [np.abs(load(network, dtype="int8", calibration=x, dense=dense)(x) - exact).max() for dense in (False, True)]
    assert max(errors) < 0.1 * np.abs(exact).max()
