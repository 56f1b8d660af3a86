"""Every Triton kernel compiles for the GPUs it is meant for, without spills; in a process apart, since this one interprets."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cosparse.bench.gpu.compiled import chosen, page
from cosparse.kernels.gpu.inventory import inventory


def test_kernels_compile_without_spills(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "cosparse.bench.gpu.compiled", "--quick", "--lines"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({(row["name"], row["capability"]) for row in rows}) == len(rows) > 0
    for row in rows:
        record_property(f"{row['name']} sm_{row['capability']}", f"{row['REG']} registers")
        if "largest=True" in row["name"]:
            kept = [".NaN." in name for name in row["maxima"]]
            assert set(kept) == {True}, f"NaN gets lost in {row['name']}, which the interpreter does not show"
        if row["multiplies"]:
            assert row["products"], f"no matrix instructions in {row['name']} sm_{row['capability']}"
    spilled = [row for row in rows if row["STACK"] or row["LOCAL"]]
    assert not spilled, f"kernels with numbers in local memory: {spilled}"
    assert page(rows, "Triton").count("\n| ") == len(rows) + 2


def test_a_quick_look_leaves_no_kernel_out() -> None:
    """Nor one of those that multiply in one of the dtypes, nor a float16 entry for the newest GPU."""
    every, quick = list(chosen(quick=False)), list(chosen(quick=True))
    assert {(entry.fn, capability) for entry, capability in quick} == {(entry.fn, capability) for entry, capability in every}
    multiply = [{(entry.fn, entry.name[-4:]) for entry, _ in some if entry.multiplies} for some in (every, quick)]
    assert multiply[0] == multiply[1]
    newest = [{entry.name for entry, capability in some if capability == 90 and entry.name.endswith("fp16")} for some in (every, quick)]
    assert newest[0] == newest[1]


def test_kernels_that_begin_early_wait() -> None:
    """A kernel that may begin before the one ahead has ended releases the next and waits, once each, whatever branch it takes."""
    early = {entry.fn for entry in inventory() if "early" in entry.constexprs}
    assert len(early) >= 11
    for fn in early:
        lines = [line.partition("  #")[0] for line in inspect.getsource(fn.fn).splitlines()]
        assert lines.count("    release(early)") == lines.count("    await_previous(early)") == 1, fn.fn.__name__
