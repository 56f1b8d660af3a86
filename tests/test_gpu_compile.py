"""Every Triton kernel compiles for the GPUs it is meant for, without spills; in a process apart, since this one interprets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CAPABILITIES = (80, 90)
PRODUCTS = re.compile(r"\bH?G?MMA\.[0-9x]+\.F32[.A-Z0-9]*")
USAGE = re.compile(r"(REG|STACK|SHARED|LOCAL):(\d+)")


def test_kernels_compile_without_spills(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({(row["name"], row["capability"]) for row in rows}) == len(rows) > 0
    for row in rows:
        record_property(f"{row['name']} sm_{row['capability']}", f"{row['REG']} registers")
        if "largest=True" in row["name"]:
            kept = [".NaN." in name for name in row["maxima"]]
            assert set(kept) == {True}, f"NaN gets lost in {row['name']}, which the interpreter does not show"
        if row["name"].startswith(("rows", "taps", "pairs")):
            assert row["products"], f"no matrix instructions in {row['name']} sm_{row['capability']}"
    spilled = [row for row in rows if row["STACK"] or row["LOCAL"]]
    assert not spilled, f"kernels with numbers in local memory: {spilled}"


def unlisted() -> list[str]:
    """Kernels of the inventory's modules that it lacks."""
    from triton.runtime.jit import JITFunction

    from cosparse.kernels.gpu.inventory import inventory

    listed = {entry.fn for entry in inventory()}
    modules = [sys.modules[fn.__module__] for fn in listed]
    kernels = {fn for module in modules for fn in vars(module).values() if isinstance(fn, JITFunction) and fn.__name__.endswith("_kernel")}
    return sorted(fn.__name__ for fn in kernels - listed)


def main() -> None:
    """Prints a line of JSON for each kernel and GPU: registers a thread, bytes of stack, shared and local memory, maxima, products."""
    import triton
    import triton.backends.nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from cosparse.kernels.gpu.inventory import inventory

    if missing := unlisted():
        sys.exit(f"kernels without an entry in kernels/gpu/inventory.py: {missing}")
    cuobjdump = Path(triton.backends.nvidia.__path__[0]) / "bin" / "cuobjdump"
    cubin = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    for entry in inventory():
        attrs = {(i,): [["tt.divisibility", 16]] for i in entry.aligned}
        options = {"num_warps": entry.num_warps, "num_stages": entry.num_stages}
        for capability in (capability for capability in CAPABILITIES if capability >= entry.least):
            source = ASTSource(entry.fn, entry.signature, entry.constexprs, attrs)
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            cubin.write_bytes(made.asm["cubin"])
            report = subprocess.run([cuobjdump, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
            usage = {name: int(number) for name, number in USAGE.findall(report)}
            maxima = sorted(set(re.findall(r"max\.[A-Za-z.]*f(?:16x2|16|32)", made.asm["ptx"])))
            code = subprocess.run([cuobjdump, "-sass", cubin], capture_output=True, text=True, check=True).stdout
            products = sorted(set(PRODUCTS.findall(code)))
            print(json.dumps({"name": entry.name, "capability": capability, **usage, "maxima": maxima, "products": products}), flush=True)
        if entry.name.endswith("fp16"):
            # Triton compiles an integer that is 1 in as a constant: sizes of 1 are other code.
            ones = {n: 1 for i, (n, kind) in enumerate(entry.signature.items()) if kind == "i32" and i not in entry.aligned}
            signature = {n: "constexpr" if n in ones else kind for n, kind in entry.signature.items()}
            source = ASTSource(entry.fn, signature, {**entry.constexprs, **ones}, attrs)
            triton.compile(source, target=GPUTarget("cuda", CAPABILITIES[-1], 32), options=options)


if __name__ == "__main__":
    main()
