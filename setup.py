"""Builds cosparse._C: one static library per instruction set, each with its own compiler flags, linked into one extension.

The runtime chooses among them at run time, so a wheel built on any x86-64 machine runs on every other.
The C library of csrc/include/cosparse.h is linked from the same archives (CMakeLists.txt).
Sanitizers: COSPARSE_SANITIZE=address,undefined pip install -e .
"""

import json
import os
import platform
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
X86 = platform.machine() in ("x86_64", "AMD64")
# Of both builds, this one and CMakeLists.txt. -ffp-contract=off: a*b+c is fused only where the source says so, so every build of one kernel
# rounds alike. -fno-trapping-math: nobody reads the processor's flags, for which compilers would make branches of bounds.
# -fno-tree-vectorize: every loop that deserves vectors has them written out; the compiler's own, of short set-up loops, cost
# more than they save. GCC 12 warns about its own AVX-512 header.
FLAGS = json.loads((ROOT / "csrc" / "flags.json").read_text())
COMMON = ["-std=c++17", "-O3", *FLAGS["common"]]
ISA_FLAGS = FLAGS["isa"]
if sanitize := os.environ.get("COSPARSE_SANITIZE"):
    COMMON += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-O1", "-g", "-fno-sanitize-recover=undefined"]


def sources(folder: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for p in (ROOT / folder).glob("*.cpp"))


def python_packages() -> dict[str, str]:
    """Import name -> folder: cosparse itself, and engine/, kernels/, compress/, bench/ as its sub-packages."""
    found = {}
    for top in ("cosparse", "engine", "kernels", "compress", "bench"):
        for init in sorted((ROOT / top).rglob("__init__.py")):
            folder = init.parent.relative_to(ROOT)
            found[".".join(folder.parts if top == "cosparse" else ("cosparse", *folder.parts))] = str(folder)
    return found


packages = python_packages()
headers = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".inc"))
core_headers = [name for name in headers if not name.startswith(("csrc/capi/", "csrc/include/", "csrc/python/", "csrc/cuda/"))]
isas = list(ISA_FLAGS) if X86 else ["scalar"]
libraries = [
    ("cosparse_core", {"sources": sources("csrc"), "cflags": COMMON, "obj_deps": {"": core_headers}}),
    ("cosparse_capi", {"sources": sources("csrc/capi"), "cflags": COMMON, "obj_deps": {"": headers}}),  # the extension leaves it out
]
libraries += [
    (f"cosparse_{isa}", {"sources": [f"csrc/kernels/isa_{isa}.cpp"], "cflags": COMMON + ISA_FLAGS[isa], "obj_deps": {"": core_headers}})
    for isa in isas
]


class Archives(build_clib):
    """Compiled once, in build/archives, whoever asks: they have nothing of Python in them."""

    def finalize_options(self) -> None:
        folder = ROOT / "build" / "-".join(["archives", *(sanitize or "").split(",")]).rstrip("-")
        self.build_clib = self.build_clib or str(folder)
        self.build_temp = self.build_temp or str(folder / "objects")
        super().finalize_options()


class LibrariesFirst(build_ext):
    """The extension links the libraries, so they are built before it, also for an editable install."""

    def run(self) -> None:
        self.run_command("build_clib")
        clib = self.get_finalized_command("build_clib")
        for extension in self.extensions:
            extension.library_dirs.append(clib.build_clib)
            extension.depends += headers + [source for _, info in libraries for source in info["sources"]]
        super().run()


extension = Pybind11Extension(
    "cosparse._C",
    sources("csrc/python"),
    include_dirs=["csrc"],
    # The core calls the ISA libraries and they call nothing back: this order resolves every symbol.
    libraries=["cosparse_core", *(f"cosparse_{isa}" for isa in isas)],
    extra_compile_args=COMMON,
    extra_link_args=["-pthread", *([f"-fsanitize={sanitize}"] if sanitize else [])],
    cxx_std=17,
)

with ParallelCompile("COSPARSE_BUILD_JOBS", default=os.cpu_count() or 1):
    setup(
        packages=list(packages),
        package_dir=packages,
        libraries=libraries,
        ext_modules=[extension],
        cmdclass={"build_ext": LibrariesFirst, "build_clib": Archives},
    )
