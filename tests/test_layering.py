"""The rules of the house: who may import whom, what must never be written, and how long a file may be."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGES = ("cosparse", "engine", "kernels", "compress", "bench")
LONGEST_FILE = 400
IMPORTERS = ("importlib.import_module", "import_module", "__import__")
EXTRAS = (
    *("torch", "triton", "scipy", "onnxruntime", "onnx", "openvino", "nncf", "typer", "rich", "matplotlib", "pyarrow", "PIL", "sklearn"),
    *("kornia", "uvicorn", "httptools", "uvloop", "starlette", "orjson", "prometheus_client", "grpc", "tritonclient"),
)


@dataclass(frozen=True)
class Import:
    """An absolute import: `module` is what is imported from (or imported), `top` whether importing the file runs it."""

    file: Path
    line: int
    module: str
    top: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(REPOSITORY)}:{self.line} imports {self.module}"


def module_name(file: Path) -> str:
    """The dotted name under which a library file is imported."""
    parts = list(file.relative_to(REPOSITORY).with_suffix("").parts)
    if parts[0] != "cosparse":
        parts.insert(0, "cosparse")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def library_files(*packages: str) -> list[Path]:
    return sorted(file for package in packages or PACKAGES for file in (REPOSITORY / package).rglob("*.py"))


def run_on_import(tree: ast.Module) -> set[ast.AST]:
    """The nodes that run when the module is imported: all but function bodies and what only the type checker reads."""
    reached: set[ast.AST] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        here = waiting.pop()
        reached.add(here)
        if isinstance(here, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(here, ast.If) and "TYPE_CHECKING" in ast.unparse(here.test):
            waiting += here.orelse
            continue
        waiting += ast.iter_child_nodes(here)
    return reached


@functools.cache
def imports(file: Path) -> list[Import]:
    return list(_imports(file))


def _imports(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = run_on_import(tree)
    name = module_name(file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for here in ast.walk(tree):
        if isinstance(here, ast.Import):
            for alias in here.names:
                yield Import(file, here.lineno, alias.name, here in top)
        elif isinstance(here, ast.ImportFrom):
            base = here.module or ""
            if here.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - here.level + 1], *filter(None, [base])])
            for alias in here.names:
                yield Import(file, here.lineno, f"{base}.{alias.name}", here in top)
        elif isinstance(here, ast.Call) and ast.unparse(here.func) in IMPORTERS and here.args and isinstance(here.args[0], ast.Constant):
            yield Import(file, here.lineno, str(here.args[0].value), here in top)


def reaches(module: str, *targets: str) -> bool:
    return any(module == target or module.startswith(target + ".") for target in targets)


def offenders(files: list[Path], *targets: str, only_top: bool = False, allowed: tuple[str, ...] = ()) -> list[str]:
    found = (entry for file in files for entry in imports(file))
    return [str(e) for e in found if reaches(e.module, *targets) and not reaches(e.module, *allowed) and (e.top or not only_top)]


def test_the_packages_are_there() -> None:
    for package in PACKAGES:
        assert library_files(package), f"{package}/ has no Python file, so nothing here would be checked"


def test_kernels_know_neither_engine_nor_compress_nor_bench() -> None:
    assert not offenders(library_files("kernels"), "cosparse.engine", "cosparse.compress", "cosparse.bench", "cosparse.cli")


def test_only_the_gpu_kernels_know_torch() -> None:
    gpu = REPOSITORY / "kernels" / "gpu"
    others = [f for f in library_files("kernels") if not f.is_relative_to(gpu)]
    assert not offenders(others, "torch", "triton")
    assert not offenders([f for f in others if f.name != "table.py"], "cosparse.kernels.gpu")  # which asks for their rows, late
    assert not offenders(others, "cosparse.kernels.gpu", only_top=True)


def test_engine_knows_neither_compress_nor_bench() -> None:
    assert not offenders(library_files("engine"), "cosparse.compress", "cosparse.bench", "cosparse.cli")


def test_engine_and_face_import_no_torch_at_module_level() -> None:
    """But for the GPU's half, which nobody imports before a GPU is asked for."""
    files = [f for f in library_files("engine", "cosparse") if not f.is_relative_to(REPOSITORY / "engine" / "gpu")]
    assert not offenders(files, "torch", "triton", "cosparse.engine.gpu", "cosparse.kernels.gpu", only_top=True)


def test_compress_uses_the_engine_through_the_artifact_only() -> None:
    through = ("cosparse.engine.graph", "cosparse.engine.artifact")
    assert not offenders(library_files("compress"), "cosparse.engine", "cosparse._C", allowed=through)
    assert not offenders(library_files("compress"), "cosparse.bench", "cosparse.cli")


def test_nobody_imports_the_command_line_but_main() -> None:
    others = [f for f in library_files() if f.name != "__main__.py" and not f.is_relative_to(REPOSITORY / "cosparse" / "cli")]
    assert not offenders(others, "cosparse.cli", "cosparse.__main__")


def test_only_serving_knows_the_servers_packages() -> None:
    """And of serving, the batcher knows none of them: programs of one's own use it alone."""
    packages = ("uvicorn", "starlette", "orjson", "prometheus_client", "grpc", "tritonclient", "fastapi")
    serve = REPOSITORY / "engine" / "serve"
    others = [f for f in library_files("engine", "kernels", "cosparse", "compress") if not f.is_relative_to(serve)]
    assert not offenders(others, *packages)
    assert not offenders([serve / name for name in ("__init__.py", "batcher.py", "refusal.py", "settings.py", "folder.py")], *packages)
    runtime = [f for f in library_files("engine", "kernels") if not f.is_relative_to(serve)]
    assert not offenders(runtime, "cosparse.engine.serve")


def test_errors_is_a_leaf_and_atomic_knows_it_alone() -> None:
    assert not offenders([REPOSITORY / "cosparse" / "errors.py"], "cosparse")
    assert not offenders([REPOSITORY / "cosparse" / "atomic.py"], "cosparse", allowed=("cosparse.errors",))


@pytest.mark.parametrize("modules", ["cosparse, cosparse.engine, cosparse.kernels", "cosparse.kernels.reference, cosparse.engine.artifact"])
def test_the_runtime_imports_without_torch(modules: str) -> None:
    """In a process where torch and the other extras cannot be imported: numpy and safetensors are all that running needs."""
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ImportError(f"{{name}} must not be needed here")
sys.meta_path.insert(0, Refuse())
import {modules}
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", library_files(), ids=lambda f: str(f.relative_to(REPOSITORY)))
def test_forbidden_constructs(file: Path) -> None:
    """No pickle (code from data), no torch.load (the same), no assert (it vanishes under -O), no swallowed exception."""
    found = [
        str(e) for e in imports(file) if reaches(e.module, "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch.load")
    ]
    for here in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        where = f"{file.relative_to(REPOSITORY)}:{getattr(here, 'lineno', 0)}"
        if isinstance(here, ast.Assert):
            found.append(f"{where} assert")
        if isinstance(here, ast.Call) and ast.unparse(here.func) in ("torch.load", "torch.save", "eval", "exec", "os.system"):
            found.append(f"{where} {ast.unparse(here.func)}")
        if isinstance(here, ast.Call) and any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in here.keywords):
            found.append(f"{where} allow_pickle")
        if isinstance(here, ast.ExceptHandler):
            broad = here.type is None or ast.unparse(here.type) in ("Exception", "BaseException")
            if broad and all(isinstance(statement, ast.Pass) for statement in here.body):
                found.append(f"{where} a swallowed exception")
    assert not found


def native_files(folder: str) -> list[Path]:
    return sorted(file for file in (REPOSITORY / folder).rglob("*") if file.suffix in (".h", ".cpp", ".inc", ".cu"))


def test_cpp_kernels_know_neither_artifact_nor_plan() -> None:
    files = native_files("csrc/kernels")
    assert files
    forbidden = re.compile(r'#include\s*[<"](?:.*/)?(artifact|container|schema|check|json|graph|plan|engine|fields|weights)\w*\.h[>"]')
    assert not [f"{file.name}: {match.group(0)}" for file in files for match in forbidden.finditer(file.read_text(encoding="utf-8"))]


def test_cpp_core_knows_no_python() -> None:
    core = [file for file in native_files("csrc") if not file.is_relative_to(REPOSITORY / "csrc" / "python")]
    assert core
    assert not [file.name for file in core if re.search(r"#include\s*[<\"](pybind11|Python\.h)", file.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("file", library_files() + native_files("csrc"), ids=lambda f: str(f.relative_to(REPOSITORY)))
def test_files_stay_short(file: Path) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines; {LONGEST_FILE} is the limit: split it by idea"


def test_the_import_reader_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    file = tmp_path / "kernels" / "sub" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import a.b\nfrom c import d\nfrom ..engine import e\nfrom . import f\n"
        "if TYPE_CHECKING:\n    import g\nelse:\n    import h\n"
        "def late():\n    import i\n    importlib.import_module('j')\n"
        "try:\n    import k\nexcept ImportError:\n    k = None\n",
        encoding="utf-8",
    )
    seen = {e.module: e.top for e in imports(file)}
    want = {"a.b": True, "c.d": True, "cosparse.kernels.engine.e": True, "cosparse.kernels.sub.f": True, "g": False, "h": True}
    assert seen == want | {"i": False, "j": False, "k": True}
