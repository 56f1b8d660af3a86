"""Many kernels' machine code in words, by one run of the disassembler, which takes half a second to begin, whatever it reads."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cosparse.errors import Error

INSTRUCTION_BYTES = 16
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*)")


def tool(name: str) -> Path:
    """One of those that Triton brings."""
    import triton.backends.nvidia

    return Path(triton.backends.nvidia.__path__[0]) / "bin" / name


def kernels(cubin: bytes) -> dict[str, bytes]:
    """The instructions of each kernel that an ELF file holds, by its name."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    strings = sections[names][4]
    found = {}
    for at, _, _, _, begin, length in sections:
        name = cubin[strings + at : cubin.index(b"\0", strings + at)].decode()
        if name.startswith(".text."):
            found[name.removeprefix(".text.")] = cubin[begin : begin + length]
    return found


def text(cubin: bytes) -> bytes:
    """The instructions of an ELF file that holds one kernel."""
    (only,) = kernels(cubin).values()
    return only


def library(path: Path) -> dict[tuple[str, str], list[str]]:
    """The instructions of each kernel of a library that nvcc made, by the kernel's name and that of the GPU, such as "sm_90a"."""
    codes = dict[str, dict[str, bytes]]()
    with tempfile.TemporaryDirectory() as folder:
        # Which takes their files out at once, and seconds to put them in words itself.
        subprocess.run([str(tool("cuobjdump")), "--extract-elf", "all", str(path.resolve())], cwd=folder, capture_output=True, check=True)
        for cubin in sorted(Path(folder).glob("*.cubin")):
            arch = cubin.suffixes[-2].removeprefix(".")
            codes.setdefault(arch, {}).update(kernels(cubin.read_bytes()))
    return {
        (name, arch): lines
        for arch, found in codes.items()
        for name, lines in zip(found, disassembled(list(found.values()), arch.replace("sm_", "SM"), tool("nvdisasm")), strict=True)
    }


def disassembled(codes: Sequence[bytes], arch: str, nvdisasm: Path) -> list[list[str]]:
    """The instructions of each in words; all are for `arch`, such as "SM90a"."""
    if not codes:
        return []
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "code"
        joined.write_bytes(b"".join(codes))
        command = [str(nvdisasm), "--binary", arch, "--no-dataflow", str(joined)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ends, results = [sum(map(len, codes[: i + 1])) for i in range(len(codes))], [list[str]() for _ in codes]
    at = 0
    for match in INSTRUCTION.finditer(said):
        while int(match[1], 16) >= ends[at]:
            at += 1
        results[at].append(match[2])
    got, expected = [len(lines) for lines in results], [len(code) // INSTRUCTION_BYTES for code in codes]
    if got != expected:
        raise Error(f"machine code of {arch}", f"{expected} instructions", str(got))
    return results
