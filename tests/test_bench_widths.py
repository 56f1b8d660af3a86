"""Measuring times over widths: which networks, how samples become a grid, and a small network's table measured, written and read."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from compress_nets import Residual, seeded
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from prune_nets import Grouped
from torch import nn
from typer.testing import CliRunner

from cosparse.bench import width_table
from cosparse.bench.in_turn import next_layer
from cosparse.bench.settings import Settings
from cosparse.bench.width_design import COLOURS, TIMES_W, colours, design, orthogonal, widths
from cosparse.bench.width_grid import WidthSample, layer_widths, monotone
from cosparse.bench.width_table import Network, errors, first, measure, plan
from cosparse.compress import Latency, count
from cosparse.compress.latency import read_table, width_times
from cosparse.compress.prune.coupling import ChannelGroup, Member, coupled
from cosparse.compress.width_latency import LayerWidths, WidthTable
from cosparse.engine.graph import Graph, Input, Node
from cosparse.errors import Error


class Forked(nn.Module):
    """Two branches joined and pooled, a depthwise layer behind them; [N, 3, 12, 12] to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.left = nn.Conv2d(32, 16, 1)
        self.right = nn.Conv2d(32, 24, 3, padding=1)
        self.point = nn.Conv2d(40, 32, 1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.last = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = nn.functional.max_pool2d(torch.relu(torch.cat([self.left(x), self.right(x)], 1)), 2)
        return self.last(torch.relu(self.deep(torch.relu(self.point(x)))).mean((2, 3)))


def test_any_two_columns_show_every_pair_once() -> None:
    rows = orthogonal()
    assert rows.shape == (16, COLOURS)
    assert (rows[0] == 0).all()
    for a, b in combinations(range(COLOURS), 2):
        assert len({(row[a], row[b]) for row in rows.tolist()}) == 16


def test_w_generates_the_field() -> None:
    """w (x + y) = w x + w y, and w^3 = 1."""
    assert all(TIMES_W[x ^ y] == TIMES_W[x] ^ TIMES_W[y] for x in range(4) for y in range(4))
    assert [TIMES_W[TIMES_W[TIMES_W[x]]] for x in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("channels", "multiple", "sections", "wanted"),
    [
        (64, 8, 1, (16, 32, 48, 64)),
        (16, 8, 1, (8, 8, 16, 16)),
        (10, 8, 1, (8, 8, 8, 10)),
        (8, 8, 1, (8, 8, 8, 8)),
        (3, 8, 1, (3, 3, 3, 3)),
        (37, 8, 1, (8, 16, 24, 37)),
        (7, 1, 1, (2, 4, 5, 7)),
        (1, 1, 1, (1, 1, 1, 1)),
        (48, 8, 3, (24, 24, 48, 48)),
    ],
)
def test_widths_are_quarters_in_multiples(channels: int, multiple: int, sections: int, wanted: tuple[int, ...]) -> None:
    assert widths(channels, multiple, sections) == wanted


def test_neighbours_get_colours_apart() -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}" for i in range(30)]
    edges = [(a, b) for a, b in combinations(names, 2) if rng.random() < 0.1]
    neighbours = {name: [b if a == name else a for a, b in edges if name in (a, b)] for name in names}
    colour = colours(neighbours)
    assert set(colour) == set(names)
    assert all(colour[a] != colour[b] for a, b in edges)
    path = {"a": ["b"], "b": ["a", "c"], "c": ["b"]}
    assert set(colours(path).values()) == {0, 1}


def test_six_that_all_meet_share_a_colour_and_it_is_said() -> None:
    layers = ["0", "1", "2", "3", "4", "5"]
    index = np.arange(16)
    groups = [
        ChannelGroup(f"g{name}", 16, 1, (Member(name, "out", index, index), *(Member(o, "in", index, index) for o in layers if o != name)))
        for name in layers
    ]
    said: list[str] = []
    vectors = plan(groups, dict.fromkeys(layers), 4, said.append)
    assert vectors[0] == {f"g{name}": 16 for name in layers}
    assert len(vectors) == 16
    assert [text.partition(", as")[0] for text in said] == ["seen at fewer pairs of widths"]
    alike = [(a, b) for a, b in combinations(vectors[0], 2) if all(row[a] == row[b] for row in vectors)]
    assert said[0].endswith(": " + ", ".join(f"{a} and {b}" for a, b in alike))
    assert len(alike) == 1


def test_no_network_is_measured_twice() -> None:
    rows = design({"a": (8, 8, 16, 16), "b": (4, 4, 4, 4)}, {"a": 0, "b": 1})
    assert rows == [{"a": 16, "b": 4}, {"a": 8, "b": 4}]


def test_all_pairs_become_the_grid() -> None:
    samples = [WidthSample(i, f, 1.0 + i * f) for i in (4, 8) for f in (2, 6, 8)]
    layer = layer_widths("x", (8, 8, 1, 1), 9.0, [*samples, WidthSample(8, 8, 65.0), WidthSample(8, 8, 60.0)])
    assert (layer.shape, layer.pixels, layer.inputs, layer.filters) == ((8, 8, 1, 1), 9.0, (4, 8), (2, 6, 8))
    assert layer.us == ((9.0, 25.0, 33.0), (17.0, 49.0, 65.0))
    assert layer.misfit == pytest.approx(5 / 60)


@pytest.mark.parametrize("truth", [(3.0, 0.5, 0.25, 0.125), (0.0, 0.0, 0.0, 0.01), (2.0, 0.0, 1.0, 0.0)])
def test_missing_pairs_are_fitted(truth: tuple[float, ...]) -> None:
    """One of the pairs is not among the samples; the grid has five lines at most, all of them widths that were seen."""
    pairs = [(i, f) for i in range(8, 72, 8) for f in (8, 16, 24, 32)][1:]
    samples = [WidthSample(i, f, truth[0] + truth[1] * i + truth[2] * f + truth[3] * i * f) for i, f in pairs]
    layer = layer_widths("x", (32, 64, 1, 1), 1.0, samples)
    assert layer.filters == (8, 16, 24, 32)
    assert len(layer.inputs) == 5
    assert (layer.inputs[0], layer.inputs[-1]) == (8, 64)
    assert {*layer.inputs} <= {*range(8, 72, 8)}
    assert layer.misfit < 1e-9
    assert layer.at(8, 8) == pytest.approx(truth[0] + 8 * truth[1] + 8 * truth[2] + 64 * truth[3])


def test_fit_weighs_relative_errors() -> None:
    """1 and 2 us at the same widths: c that is least in (c - 1)^2 + (c / 2 - 1)^2 is 1.2."""
    layer = layer_widths("x", (2, 2), 1.0, [WidthSample(i, 3 - i, us) for i in (1, 2) for us in (1.0, 2.0)])
    assert (layer.at(1, 2), layer.at(2, 1), layer.misfit) == pytest.approx((1.2, 1.2, 0.4))


def test_fit_has_no_falling_term() -> None:
    samples = [WidthSample(w, w, 10.0 - w) for w in (2, 4, 6, 8)]
    layer = layer_widths("x", (8, 8), 1.0, samples)
    assert layer.at(2, 2) == pytest.approx(layer.dense_us)
    assert layer.misfit > 0.1


@pytest.mark.parametrize("samples", [[], [WidthSample(1, 1, 0.0)]])
def test_layer_without_time_is_refused(samples: list[WidthSample]) -> None:
    with pytest.raises(Error, match=r"layer 'x': expected a step of its own, with a time, got \d samples"):
        layer_widths("x", (1, 1), 1.0, samples)


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1e3))))
def test_grids_become_monotone(us: np.ndarray) -> None:
    found = monotone(us)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()
    assert us.min() <= found.min() <= found.max() <= us.max()
    np.testing.assert_array_equal(monotone(found), found)


def test_monotone_is_between_its_bounds() -> None:
    np.testing.assert_array_equal(monotone(np.array([[1.0, 3.0, 2.0]])), [[1.0, 2.5, 2.5]])
    np.testing.assert_array_equal(monotone(np.array([[1.0, 5.0], [2.0, 4.0]])), [[1.0, 4.5], [2.0, 4.5]])


def test_first_channels_of_each_section() -> None:
    assert first(ChannelGroup("g", 12, 3, ()), 6).tolist() == [0, 1, 4, 5, 8, 9]
    assert first(ChannelGroup("g", 12, 1, ()), 5).tolist() == [0, 1, 2, 3, 4]


def test_steps_between_layers_are_charged_to_the_next() -> None:
    nodes = [("a", "x"), ("pool", "a"), ("b", "pool"), ("sum", "a", "b"), ("c.conv2d", "sum"), ("b#2", "c.conv2d"), ("softmax", "b#2")]
    graph = Graph("g", (Input("x", (None, 3, 8, 8)),), ("softmax",), tuple(Node(name, "op", inputs) for name, *inputs in nodes))  # type: ignore[arg-type]
    charged = next_layer(graph, ["a", "b", "c"])
    assert [charged(name) for name, *_ in nodes] == ["a", "b", "b", "c", "c", "b", ""]
    assert charged("unknown") == ""


def test_errors_of_whole_networks() -> None:
    layer = LayerWidths((8, 8), 1.0, (8,), (4, 8), ((2.0, 4.0),), 0.0)
    table = WidthTable("n", ((1, 8),), 1, "avx2", "float32", "cpu", "0", 1.0, {"x": layer})
    networks = [Network({"x": (8, 8)}, {"x": 4.0, "": 1.0}), Network({"x": (8, 6)}, {"x": 4.0, "": 1.0})]
    assert errors(table, networks) == pytest.approx((-0.2, 0.0))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(width_table, "ROUNDS", 1)
    monkeypatch.setattr(width_table, "REPEAT", 3)


def test_table_of_a_small_network_serves_a_bound(tmp_path: Path, quick: None) -> None:
    model, example = seeded(Forked), torch.zeros(1, 3, 12, 12)
    said: list[str] = []
    table = measure(model, example, Settings(threads=1, against=()), name="small", progress=said.append)
    assert (table.network, table.inputs, table.threads, table.dtype) == ("small", ((1, 3, 12, 12),), 1, "float32")
    axes = {name: (layer.inputs, layer.filters) for name, layer in table.layers.items()}
    assert axes["stem"] == ((3,), (8, 16, 24, 32))
    assert axes["left"] == ((8, 16, 24, 32), (8, 16))
    assert axes["right"] == ((8, 16, 24, 32), (8, 16, 24))
    assert axes["point"][0][-1] == 40
    assert axes["point"][1] == (8, 16, 24, 32)
    assert axes["deep"] == ((32,), (8, 16, 24, 32))
    assert axes["last"] == ((8, 16, 24, 32), (5,))
    assert said[:2] == ["network 1 of 16", "network 2 of 16"]
    assert said[-1].startswith("whole networks by the table: off by ")
    path = tmp_path / "T.json"
    path.write_text(table.to_json())
    assert read_table(path) == table
    assert width_times(Latency(path, share=0.5), count(model, example)) == table
    assert table.dense_us > table.other_us + sum(layer.at(1, 1) for layer in table.layers.values())


def test_coupled_channels_are_measured(quick: None) -> None:
    """conv2 reads and makes the same channels."""
    model, example = seeded(Residual), torch.zeros(1, 1, 8, 8)
    table = measure(model, example, Settings(threads=1, against=()), groups=coupled(model, example))
    assert table.network == "Residual"
    assert table.layers["conv2"].inputs == table.layers["conv2"].filters == (8, 16)


def test_grouped_and_flattened_channels_are_measured(quick: None) -> None:
    """Four sections, a transposed layer, a classifier of flattened pixels."""
    table = measure(seeded(Grouped), torch.zeros(1, 3, 8, 8), Settings(threads=1, against=()), multiple=16)
    axes = {name: (layer.inputs, layer.filters) for name, layer in table.layers.items()}
    assert axes == {
        "a": ((3,), (16, 32)),
        "b": ((16, 32), (16, 32)),
        "c": ((16, 32), (16, 24)),
        "d": ((16, 24), (16,)),
        "e": ((256,), (5,)),
    }


def test_network_that_cannot_lose_channels_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with pytest.raises(Error, match="tiny: expected channels that can go, 8 at a time, got none; a smaller multiple"):
        measure(model, torch.zeros(1, 1, 8, 8), Settings(threads=1, against=()), name="tiny")


@pytest.mark.parametrize(
    ("network", "out", "message"),
    [("resnet20", "T.json", "expected zoo:NAME or path/file.py:factory"), ("zoo:resnet20", "none/T.json", "expected an existing folder")],
)
def test_command_says_what_is_wrong(network: str, out: str, message: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(width_table.main)
    done = CliRunner().invoke(app, [network, "--out", str(tmp_path / out)])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize("own", [False, True], ids=["zoo", "file"])
def test_command_writes_a_table(own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerWidths((8, 8), 1.0, (8,), (4, 8), ((2.0, 4.0),), 0.0)

    def measured(model: nn.Module, example: torch.Tensor, settings: Settings, *, name: str, multiple: int, progress: object) -> WidthTable:
        assert (settings.threads, settings.isa, multiple) == (1, "scalar", 4)
        return WidthTable(name, (tuple(example.shape),), settings.threads, "scalar", settings.dtype, "cpu", "0", 1.0, {"x": layer})

    monkeypatch.setattr(width_table, "measure", measured)
    network, name = "zoo:resnet20", "resnet20"
    if own:
        script = tmp_path / "nets.py"
        script.write_text("import torch\ndef ghost(): return torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 32, 32)\n")
        network, name = f"{script}:ghost", "ghost"
    app = typer.Typer()
    app.command()(width_table.main)
    out = tmp_path / "T.json"
    done = CliRunner().invoke(app, [network, "--out", str(out), "--threads", "1", "--multiple", "4", "--isa", "scalar"])
    assert done.exit_code == 0, done.output
    assert "T.json: 1 layers, full network 0.005 ms" in " ".join(done.output.split())
    table = read_table(out)
    assert isinstance(table, WidthTable)
    assert (table.network, table.inputs, table.layers) == (name, ((1, 3, 32, 32),), {"x": layer})
