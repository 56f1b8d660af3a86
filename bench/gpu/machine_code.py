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


def text(cubin: bytes) -> bytes:
    """The instructions of an ELF file that holds one kernel."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    strings = sections[names][4]
    found = [cubin[begin : begin + length] for name, _, _, _, begin, length in sections if cubin.startswith(b".text.", strings + name)]
    (only,) = found
    return only


def disassembled(cubins: Sequence[bytes], arch: str, nvdisasm: Path) -> list[list[str]]:
    """The instructions of each file; all are for `arch`, such as "SM90a"."""
    if not cubins:
        return []
    codes = [text(cubin) for cubin in cubins]
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
