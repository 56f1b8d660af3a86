"""The latency table: the fit finds planted times, and a small network's table is measured, written, read and used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cosparse.bench import latency_table
from cosparse.bench.latency_table import POINTS, Sample, fit, measure
from cosparse.bench.settings import Settings
from cosparse.compress import Budget, Latency, count, impose
from cosparse.compress.latency import read_table
from cosparse.compress.layers import choose
from cosparse.errors import Error
from tests.compress_nets import Residual, seeded

EXAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.mark.parametrize("truth", [(3.0, 10.0, 28.0), (0.0, 2.0, 400.0), (5.0, 0.0, 1.0)])
def test_fit_finds_planted_times(truth: tuple[float, float, float]) -> None:
    samples = [Sample(kept, channels, truth[0] + truth[1] * channels + truth[2] * kept) for kept, channels in POINTS]
    *found, misfit = fit(samples, 0.01)
    assert found == pytest.approx(truth, rel=1e-4, abs=1e-4 * max(truth))
    assert misfit < 1e-4


def test_fit_never_gives_a_coefficient_away() -> None:
    falling = [Sample(kept, channels, 10.0 - kept) for kept, channels in POINTS]
    fixed, basis, kept, misfit = fit(falling, 0.25)
    assert kept == pytest.approx(0.25)
    assert min(fixed, basis) >= 0
    assert misfit > 0.01


def test_fit_wants_four_densities() -> None:
    with pytest.raises(Error, match=r"samples: expected times at four densities or more, got 3 of them"):
        fit([Sample(kept, 1.0, 1.0) for kept in (0.1, 0.2, 0.3)], 0.01)


def test_table_of_a_small_network_serves_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_table, "ROUNDS", 1)
    monkeypatch.setattr(latency_table, "REPEAT", 3)
    model = seeded(Residual)
    table = measure(model, EXAMPLE, Settings(threads=1, against=()), name="small")
    assert (table.network, table.inputs, table.threads) == ("small", ((1, 1, 8, 8),), 1)
    assert set(table.layers) == {choice.name for choice in choose(model, count(model, EXAMPLE)) if choice.transform}
    assert table.other_us > 0
    assert all(layer.dense_us > 0 for layer in table.layers.values())
    path = tmp_path / "T.json"
    path.write_text(table.to_json())
    assert read_table(path) == table
    # On a busy machine a layer of some microseconds may seem no faster sparse; any bound above everything's time can be met.
    bound = (table.dense_us + sum(layer.fixed_us + layer.basis_us for layer in table.layers.values())) / 1e3
    imposed = impose(model, Budget(latency=Latency(path, ms=2 * bound), flops=0.5), EXAMPLE)
    assert count(imposed, EXAMPLE).flops_reduction >= 0.5


def test_network_without_maskable_layers_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))
    with pytest.raises(Error, match="tiny: expected a layer that can carry a mask, got none"):
        measure(model, EXAMPLE, Settings(threads=1, against=()), name="tiny")


@pytest.mark.parametrize(
    ("network", "out", "message"),
    [("resnet20", "T.json", "expected zoo:NAME or path/file.py:factory"), ("zoo:resnet20", "none/T.json", "expected an existing folder")],
)
def test_command_says_what_is_wrong(network: str, out: str, message: str, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(latency_table.main)
    done = CliRunner().invoke(app, [network, "--out", str(tmp_path / out)])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
