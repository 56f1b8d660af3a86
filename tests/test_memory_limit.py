"""Networks that need more memory than there is: refused by name, before anything is packed or planned in proportion."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from nodes import conv, normal
from small_net import small_net

import cosparse
from cosparse import _C
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node

MIB = 1 << 20
MEMINFO = "MemTotal:       24576000 kB\nMemFree:         100 kB\nMemAvailable:   {} kB\n"


def tall(path: Path, rows: int) -> Path:
    """An activation, an average pool and an upsampling of one column of so many rows: a few hundred bytes of file."""
    pool = {"kernel": [2, 1], "stride": [1, 1], "pad": [0, 0, 0, 0], "ceil": 0, "count_pad": 0, "divisor": 0}
    steps = (
        Node("pool", "avg_pool", ("x",), pool),
        Node("relu", "activation", ("pool",), {"kind": "relu", "alpha": 0.0, "beta": 0.0}),
    )
    artifact.write(path, Graph("tall", (Input("x", (None, 1, rows, 1)),), ("relu",), steps))
    return path


def wide(path: Path, filters: int, channels: int) -> Path:
    """A 1x1 convolution with one block of 8 in each block row: a dense copy of it would be `filters` x `channels` large."""
    count = filters // 8
    tensors = {
        "values": normal(np.random.default_rng(0), count, 8),
        "columns": (np.arange(count) * 37 % channels).astype(np.uint32 if channels > 65536 else np.uint16),
        "rows": np.arange(count + 1, dtype=np.uint32),
    }
    attrs = conv(np.random.default_rng(0), 8, 8, (1, 1)).attrs | {"filters": filters, "channels": channels, "format": "block", "block": 8}
    artifact.write(path, Graph("wide", (Input("x", (None, channels, 1, 1)),), ("c",), (Node("c", "conv", ("x",), attrs, tensors),)))
    return path


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_values_beyond_the_limit_are_refused_at_load(tmp_path: Path) -> None:
    path, before = tall(tmp_path / "tall.cosparse", 2**31 - 1), peak()
    assert path.stat().st_size < 2048
    with pytest.raises(cosparse.MemoryLimitError, match=r"value 'x': .* at most 100 MB \(max_memory\), got 8589 MB") as error:
        cosparse.load(path, max_memory=100_000_000, tune=False)
    assert isinstance(error.value, MemoryError)
    assert isinstance(error.value, cosparse.Error)
    assert peak() - before < 64 * MIB


@pytest.mark.parametrize("tune", [False, True])
def test_activations_beyond_the_limit_are_refused_when_planned(tmp_path: Path, tune: bool) -> None:
    artifact.write(tmp_path / "net.cosparse", small_net())
    need = cosparse.load(tmp_path / "net.cosparse", threads=1, tune=False).warmup().arena_bytes
    assert cosparse.load(tmp_path / "net.cosparse", threads=1, tune=False, max_memory=need).warmup().ready

    def run() -> None:
        cosparse.load(tmp_path / "net.cosparse", threads=1, max_memory=need - 1, tune=tune).warmup()

    with pytest.raises(cosparse.MemoryLimitError, match="network 'small': expected activations of at most"):
        run()


def test_an_engine_answers_on_after_a_size_that_is_too_large(tmp_path: Path) -> None:
    engine = cosparse.load(tall(tmp_path / "tall.cosparse", 64), tune=False, threads=1, max_memory=MIB)
    with pytest.raises(cosparse.MemoryLimitError, match=r"\[1, 1, 300000, 1\]; use smaller batches or images, or allow it more memory"):
        engine(np.zeros((1, 1, 300_000, 1), np.float32))
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 64, 1)
    np.testing.assert_array_equal(engine(x), (x[:, :, 1:] + x[:, :, :-1]) / 2)


def test_results_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    """A value that is an output a thousand times is written a thousand times, wherever it lies while the network runs."""
    nodes = (Node("relu", "activation", ("x",), {"kind": "relu", "alpha": 0.0, "beta": 0.0}),)
    artifact.write(tmp_path / "net.cosparse", Graph("many", (Input("x", (None, 1, 64, 64)),), ("relu",) * 1000, nodes))
    engine = cosparse.load(tmp_path / "net.cosparse", tune=False, threads=1, max_memory=MIB)
    with pytest.raises(cosparse.MemoryLimitError, match=r"network 'many': expected results of at most .* got 16 MB for \[1, 1, 64, 64\]"):
        engine(np.zeros((1, 1, 64, 64), np.float32))


@pytest.mark.parametrize("tune", [False, True])
def test_weights_beyond_the_limit_are_refused(tune: bool, tmp_path: Path) -> None:
    """Also before they are packed to be measured."""
    artifact.write(tmp_path / "net.cosparse", small_net(channels=64))
    with pytest.raises(cosparse.MemoryLimitError, match=r"network 'small': expected packed weights of at most .* for 4 layers"):
        cosparse.load(tmp_path / "net.cosparse", max_memory=20_000, dense=True, tune=tune)


def test_a_form_far_larger_than_the_cheapest_is_not_measured(tmp_path: Path) -> None:
    """2^29 weights if dense, from a file of 6 kB: that copy would take 2 GiB and cannot win."""
    path, before = wide(tmp_path / "wide.cosparse", 1024, 1 << 19), peak()
    engine = cosparse.load(path, threads=1)
    (why,) = (row.why for row in engine.plan)
    assert "cosparse" in why
    assert "dense" not in why
    assert peak() - before < 256 * MIB
    x = np.random.default_rng(1).standard_normal((1, 1 << 19, 1, 1), np.float32)
    graph = artifact.read(path)
    values, columns = graph.nodes[0].tensors["values"], graph.nodes[0].tensors["columns"]
    np.testing.assert_allclose(engine(x)[0, :, 0, 0], (values * x[0, columns.astype(int), 0]).ravel(), rtol=1e-6)


def test_a_limit_that_makes_no_sense(tmp_path: Path) -> None:
    artifact.write(tmp_path / "net.cosparse", small_net())
    with pytest.raises(cosparse.Error, match="max_memory: expected at least 1, or None"):
        cosparse.load(tmp_path / "net.cosparse", max_memory=0)


# The machine's and the control groups' files, as stand-ins.


def machine(folder: Path, available: int | None, cgroup: str = "") -> tuple[str, str]:
    proc, groups = folder / "proc", folder / "groups"
    (proc / "self").mkdir(parents=True), groups.mkdir()
    if available is not None:
        (proc / "meminfo").write_text(MEMINFO.format(available // 1024))
    (proc / "self" / "cgroup").write_text(cgroup)
    return str(proc), str(groups)


def group(folder: Path, path: str, limit: str, used: int, pages: int | None = None, v1: bool = False) -> None:
    at = folder / "groups" / path
    at.mkdir(parents=True, exist_ok=True)
    (at / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(f"{limit}\n")
    (at / ("memory.usage_in_bytes" if v1 else "memory.current")).write_text(f"{used}\n")
    if pages is not None:
        (at / "memory.stat").write_text(f"anon 5\nfile 6\ninactive_file {pages}\nactive_file 7\n")


def test_what_the_machine_has_left(tmp_path: Path) -> None:
    assert _C.memory_left(*machine(tmp_path, 100 * MIB)) == 100 * MIB


def test_nothing_is_known_of_the_machine(tmp_path: Path) -> None:
    assert _C.memory_left(*machine(tmp_path, None)) == 2**63 - 1
    assert 0 < _C.memory_left() < 2**63 - 1


@pytest.mark.parametrize(
    ("limit", "used", "pages", "left"),
    [
        ("max", 5, None, 100 * MIB),
        (str(30 * MIB), 10 * MIB, None, 20 * MIB),
        (str(30 * MIB), 28 * MIB, 8 * MIB, 10 * MIB),
        (str(MIB), 2 * MIB, None, 0),
        (str(200 * MIB), 0, 0, 100 * MIB),
    ],
)
def test_a_control_group(tmp_path: Path, limit: str, used: int, pages: int | None, left: int) -> None:
    files = machine(tmp_path, 100 * MIB, "0::/\n")
    group(tmp_path, ".", limit, used, pages)
    assert _C.memory_left(*files) == left


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    files = machine(tmp_path, 100 * MIB, "1:name=systemd:/x\n0::/pod/box\n")
    group(tmp_path, "pod", str(50 * MIB), 10 * MIB)
    group(tmp_path, "pod/box", str(90 * MIB), 10 * MIB)
    assert _C.memory_left(*files) == 40 * MIB


def test_control_groups_of_the_first_version(tmp_path: Path) -> None:
    files = machine(tmp_path, 100 * MIB, "4:cpu,cpuacct:/a\n3:memory:/a\n")
    group(tmp_path, "memory/a", str(9223372036854771712), 3 * MIB, v1=True)
    group(tmp_path, "memory", str(64 * MIB), 3 * MIB, v1=True)
    assert _C.memory_left(*files) == 61 * MIB
