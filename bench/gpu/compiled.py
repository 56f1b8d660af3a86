"""What the compilers make of the GPU kernels: registers, shared memory, spills, matrix instructions. Needs no GPU.

    TRITON_INTERPRET=0 python -m cosparse.bench.gpu.compiled [--quick]      writes docs/results/gpu/kernels.md
    TRITON_INTERPRET=0 python -m cosparse.bench.gpu.compiled --lines        a line of JSON for each kernel and GPU instead

Triton's kernels are those of kernels/gpu/inventory.py; those in CUDA C++ come from nvcc, where it is installed. `--quick`: bfloat16 only
where products are made, and only on the newest GPU; older ones and bfloat16 without the inventory's lesser entries; what makes neither
products nor maxima is compiled for older ones with ones alone (see compile_one), which for the newest is left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cosparse.bench.gpu.machine_code import disassembled, library, text, tool
from cosparse.errors import Error
from cosparse.kernels.gpu import build
from cosparse.kernels.gpu.inventory import Compiled, inventory

CAPABILITIES = (80, 90)
DISASSEMBLED = {80: "SM80", 90: "SM90a"}
PRODUCTS = re.compile(r"\bH?G?MMA\.[0-9x]+\.F32[.A-Z0-9]*")
USAGE = re.compile(r"(REG|STACK|SHARED|LOCAL):(\d+)")
NVCC = re.compile(
    r"Compiling entry function '(\S+)' for 'sm_(\d+)\w*'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers",
    re.DOTALL,
)
PAGE = Path("docs/results/gpu/kernels.md")


def unlisted() -> list[str]:
    """Kernels of the inventory's modules that it lacks."""
    from triton.runtime.jit import JITFunction

    listed = {entry.fn for entry in inventory()}
    modules = [sys.modules[fn.__module__] for fn in listed]
    kernels = {fn for module in modules for fn in vars(module).values() if isinstance(fn, JITFunction) and fn.__name__.endswith("_kernel")}
    return sorted(fn.__name__ for fn in kernels - listed)


def chosen(quick: bool) -> Iterator[tuple[Compiled, int]]:
    """Each entry with each capability that it is compiled for."""
    for entry in inventory():
        for capability in CAPABILITIES:
            newest, bf16 = capability == CAPABILITIES[-1], entry.name.endswith("bf16")
            rare = (bf16 and not (entry.multiplies and newest)) or (entry.lesser and (bf16 or not newest))
            if entry.least <= capability <= entry.most and not (quick and rare):
                yield entry, capability


def compile_one(entry: Compiled, capability: int, ones: bool = False) -> Any:
    """Triton's result; `ones`: every free integer is 1, which Triton compiles in as a constant, so that it is other code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    attrs = {(i,): [["tt.divisibility", 16]] for i in entry.aligned}
    signature, fixed = dict(entry.signature), dict(entry.constexprs)
    if ones:
        free = [n for i, (n, kind) in enumerate(signature.items()) if kind == "i32" and i not in entry.aligned]
        signature, fixed = signature | dict.fromkeys(free, "constexpr"), fixed | dict.fromkeys(free, 1)
    options = {"num_warps": entry.num_warps, "num_stages": entry.num_stages}
    return triton.compile(ASTSource(entry.fn, signature, fixed, attrs), target=GPUTarget("cuda", capability, 32), options=options)


def triton_rows(quick: bool) -> list[dict[str, Any]]:
    """One for each kernel and capability: REG a thread, STACK, SHARED and LOCAL bytes, maxima in the PTX, products in the machine code."""
    rows, multiply = [], dict[int, list[tuple[dict[str, Any], bytes]]]()
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        for entry, capability in chosen(quick):
            newest = capability == CAPABILITIES[-1]
            once = quick and not entry.multiplies and "largest=True" not in entry.name
            made = compile_one(entry, capability, ones=once and not newest)
            cubin.write_bytes(made.asm["cubin"])
            command = [str(tool("cuobjdump")), "--dump-resource-usage", str(cubin)]
            report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            usage = {name: int(number) for name, number in USAGE.findall(report)}
            # Triton's shared memory is given at the launch, so the file states none.
            row = {"name": entry.name, "capability": capability, "multiplies": entry.multiplies, **usage, "SHARED": made.metadata.shared}
            row["maxima"] = sorted(set(re.findall(r"max\.[A-Za-z.]*f(?:16x2|16|32)", made.asm["ptx"])))
            if entry.multiplies:
                multiply.setdefault(capability, []).append((row, made.asm["cubin"]))
            elif entry.name.endswith("fp16") and newest and not once:
                compile_one(entry, capability, ones=True)
            rows.append(row)
    for capability, found in multiply.items():
        codes = disassembled([text(binary) for _, binary in found], DISASSEMBLED[capability], tool("nvdisasm"))
        for (row, _), code in zip(found, codes, strict=True):
            row["products"] = sorted({name for line in code for name in PRODUCTS.findall(line)})
    return rows


def cuda_rows() -> list[dict[str, Any]]:
    """The same of the kernels in CUDA C++; Error where nvcc is missing."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "_cuda.so"
        said = build.build(made, flags=("-Xptxas", "-v", "--threads", "2"))
        code = library(made)
    products = {
        (name, arch[3:5]): sorted({found for line in lines for found in PRODUCTS.findall(line)}) for (name, arch), lines in code.items()
    }
    rows = []
    for symbol, capability, stack, spilled, registers in NVCC.findall(said):
        numbers = re.findall(r"Li(\d+)E", symbol)
        kernel = next(name for name in ("conv_stem", "conv_shared", "conv_basis") if name in symbol)
        name = f"{kernel}<{', '.join(['bf16' if 'BFloat' in symbol else 'fp16', *numbers])}>"
        usage = {"REG": int(registers), "STACK": int(stack), "LOCAL": int(spilled), "SHARED": 0}
        rows.append(
            {
                "name": name,
                "capability": int(capability),
                "multiplies": True,
                **usage,
                "maxima": [],
                "products": products[symbol, capability],
            }
        )
    return rows


def page(rows: Sequence[dict[str, Any]], versions: str) -> str:
    """The table as Markdown; one line for a kernel on all GPUs where the figures are the same."""
    lines = [
        "# What the compilers make of the GPU kernels",
        "",
        f"{versions}. Registers a thread; shared memory as compiled in (those in CUDA C++ take theirs at the launch); spills in bytes.",
        "`TRITON_INTERPRET=0 python -m cosparse.bench.gpu.compiled` makes this page; tests/test_gpu_compile.py and test_gpu_cuda_build.py",
        "hold it to no spills, and to matrix instructions wherever a kernel multiplies.",
        "",
        "| kernel | sm | registers | shared, bytes | spills | matrix instructions |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        products = ", ".join(row.get("products", [])) or ("none" if row["multiplies"] else "–")
        lines.append(
            f"| {row['name']} | {row['capability']} | {row['REG']} | {row['SHARED']} | {row['STACK'] + row['LOCAL']} | {products} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args(arguments)
    if missing := unlisted():
        sys.exit(f"kernels without an entry in kernels/gpu/inventory.py: {missing}")
    gc.set_threshold(100_000)  # compiling makes many objects, and hardly any that only this would free
    if options.lines:
        for row in triton_rows(options.quick):
            print(json.dumps(row), flush=True)
        return
    import triton

    rows, versions = triton_rows(options.quick), f"Triton {triton.__version__}"
    try:
        rows += cuda_rows()
        versions += f", {build.version()}"
    except Error as error:
        print(f"without the kernels in CUDA C++: {error}")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(rows, versions), encoding="utf-8")


if __name__ == "__main__":
    main()
