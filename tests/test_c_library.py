"""The C library: the same answers as Python's engine, errors that name the thing, and what its header promises of threads and memory."""

from __future__ import annotations

import ctypes
import json
import re
import resource
import threading
from ctypes import byref, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

import c_library
import numpy as np
import pytest
from c_library import ARTIFACT, MEMORY, SHAPE, UNSUPPORTED, USAGE, Info, Library, Options, Step, Value, View, pointers, shapes_of
from sample_graphs import every_op, every_transform

import cosparse
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node
from cosparse.kernels.view import Axis


@pytest.fixture(scope="module")
def library(repository: Path) -> Library:
    return Library(c_library.installed(repository))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    artifact.write(folder / "ops.cosparse", every_op())
    artifact.write(folder / "net.cosparse", every_transform())
    return folder


def images(batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 6, 8, 8)).astype(np.float32)


def test_versions_agree(library: Library, repository: Path) -> None:
    header = (repository / "csrc" / "include" / "cosparse.h").read_text()
    assert f'#define COSPARSE_VERSION "{cosparse.__version__}"' in header
    assert library.native.cosparse_version().decode() == cosparse.__version__
    assert f"#define COSPARSE_ABI {library('abi')}" in header


def test_the_header_declares_what_the_library_has(library: Library, repository: Path) -> None:
    header = (repository / "csrc" / "include" / "cosparse.h").read_text()
    declared = set(re.findall(r"COSPARSE_API [^;(]*?\b(cosparse_\w+)\(", header))
    assert len(declared) == 24
    assert all(hasattr(library.native, name) for name in declared)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_answers_are_those_of_python(library: Library, folder: Path, batch: int) -> None:
    x = np.random.default_rng(batch).standard_normal((batch, 4, 8, 8)).astype(np.float32)
    z = np.random.default_rng(batch + 1).standard_normal((batch, 6)).astype(np.float32)
    engine = library.load(folder / "ops.cosparse", tune=0, threads=2)
    context = library.context(engine, x.shape, z.shape)
    wanted = cosparse.load(folder / "ops.cosparse", tune=False, threads=2)(x, z)
    for got in (library.run(engine, [x, z]), library.run_in(context, [x, z], 3)):
        assert all(np.array_equal(g, w, equal_nan=True) for g, w in zip(got, wanted, strict=True))
    library("context_free", context)
    library("free", engine)


@pytest.mark.parametrize(("dtype", "name"), [(0, "float32"), (1, "bfloat16"), (2, "int8")])
def test_dtypes(library: Library, folder: Path, dtype: int, name: str) -> None:
    samples = images(3)[:, :, :5, :4].copy()  # of the example's size
    engine = library.load(folder / "net.cosparse", tune=0, dtype=dtype, calibration=pointers([samples]), calibration_batch=3)
    wanted = cosparse.load(folder / "net.cosparse", tune=False, dtype=name, calibration=samples)(images(2, 1))
    assert np.array_equal(library.run(engine, [images(2, 1)])[0], wanted)
    info = Info(size=ctypes.sizeof(Info))
    library.works("describe", engine, byref(info))
    assert info.dtype == dtype
    library("free", engine)


def test_int8_wants_samples(library: Library, folder: Path) -> None:
    engine = c_void_p()
    path = str(folder / "net.cosparse").encode()
    library.refuses(USAGE, "calibration", "load_file", path, byref(library.options(dtype=2)), byref(engine))
    none = library.options(dtype=2, calibration=pointers([None]), calibration_batch=1)
    library.refuses(USAGE, "calibration[i]: expected a pointer, got NULL", "load_file", path, byref(none), byref(engine))
    assert engine.value is None


def test_from_memory(library: Library, folder: Path) -> None:
    content = (folder / "net.cosparse").read_bytes()
    engine = c_void_p()
    library.works("load_memory", content, len(content), b"mine", None, byref(engine))
    assert library.run(engine, [images()])[0].shape == (1, 3)
    library("free", engine)
    library.refuses(ARTIFACT, "mine", "load_memory", content[:100], 100, b"mine", None, byref(engine))
    library.refuses(ARTIFACT, "artifact", "load_memory", content, 0, None, None, byref(engine))
    library.refuses(USAGE, "bytes", "load_memory", None, 5, None, None, byref(engine))


class Later(ctypes.Structure):
    """cosparse_info as a later header of the same ABI may have it."""

    _fields_ = (("info", Info), ("added", c_int64))


def test_what_it_tells_of_itself(library: Library, folder: Path) -> None:
    engine = library.load(folder / "ops.cosparse", threads=2, contexts=3, isa=b"scalar", tune=0)
    info, value = Info(size=ctypes.sizeof(Info)), Value()
    library.works("describe", engine, byref(info))
    assert (info.name, info.isa, info.threads, info.contexts) == (b"every_op", b"scalar", 2, 3)
    assert info.weight_bytes > 0
    assert info.workspace_bytes == 0
    assert json.loads(info.json)["provenance"] == {"seed": 7}
    assert (library("input_count", engine), library("output_count", engine)) == (2, 3)
    library.works("input", engine, 1, byref(value))
    assert (value.name, value.shape.rank, list(value.shape.sizes[:2])) == (b"z", 2, [-1, 6])
    library.works("output", engine, 0, byref(value))
    assert (value.name, value.shape.rank, list(value.shape.sizes[:2])) == (b"softmax", 2, [-1, 3])
    library.refuses(USAGE, "input: expected an index below 2, got 2", "input", engine, 2, byref(value))
    library.refuses(USAGE, "output: expected an index below 3", "output", engine, 3, byref(value))
    info.size = 8
    library.refuses(USAGE, "info.size", "describe", engine, byref(info))
    later = Later(info=Info(size=ctypes.sizeof(Later)), added=77)
    library.works("describe", engine, byref(later))
    assert (later.info.size, later.info.name, later.added) == (ctypes.sizeof(Later), b"every_op", 0)
    library("free", engine)


def test_files_that_will_not_do(library: Library, folder: Path, tmp_path: Path) -> None:
    engine = c_void_p()
    library.refuses(ARTIFACT, "nowhere", "load_file", b"nowhere", None, byref(engine))
    (tmp_path / "bad.cosparse").write_bytes((folder / "net.cosparse").read_bytes()[:-1])
    library.refuses(ARTIFACT, "bad.cosparse", "load_file", str(tmp_path / "bad.cosparse").encode(), None, byref(engine))
    error = library.error()
    assert all(getattr(error, name) for name in ("message", "about", "expected", "got"))
    library.refuses(USAGE, "path", "load_file", None, None, byref(engine))
    library.refuses(USAGE, "engine", "load_file", b"x", None, None)
    assert engine.value is None


@pytest.mark.parametrize(
    ("values", "status", "text"),
    [
        ({"size": 3}, USAGE, "one of 3 bytes"),
        ({"abi": 99}, USAGE, "one of ABI 99"),
        ({"max_memory": -1}, USAGE, "max_memory: expected bytes, or 0"),
        ({"max_memory": 1000}, MEMORY, "activations of at most 1000 bytes (max_memory), got 1040 bytes"),
        ({"winograd": 2}, USAGE, "options.winograd: expected -1, 0 or 1, got 2"),
        ({"threads": -1}, USAGE, "threads: expected 1 to 1024"),
        ({"contexts": -1}, USAGE, "contexts: expected 1 to 4096"),
        ({"contexts": 4097}, USAGE, "contexts: expected 1 to 4096"),
        ({"dtype": 9}, USAGE, "options.dtype"),
        ({"isa": b"sse9"}, USAGE, "sse9"),
        ({"cores": (c_int32 * 1)(9999), "core_count": 1}, USAGE, "cores: expected cores that this process may use"),
    ],
)
def test_options_that_make_no_sense(library: Library, folder: Path, values: dict, status: int, text: str) -> None:
    engine = c_void_p()
    library.refuses(status, text, "load_file", str(folder / "net.cosparse").encode(), byref(library.options(**values)), byref(engine))


def test_options_of_an_older_header(library: Library, folder: Path) -> None:
    """What a program of the first ABI 1 does not know is the default, whatever lies behind its structure."""
    engine = library.load(folder / "net.cosparse", size=Options.max_memory.offset, max_memory=1, tune=0)
    assert library("input_count", engine) == 1


def test_arrays_that_the_network_does_not_take(library: Library, folder: Path) -> None:
    engine, context = library.load(folder / "net.cosparse", tune=0), c_void_p()
    x, y, room = pointers([images()]), pointers([np.zeros((1, 3), np.float32)]), (c_size_t * 1)(3)

    def run(shape: tuple[int, ...], count: int = 1, outputs: object = y, sizes: object = room, number: int = 1) -> tuple:
        return "run", engine, shapes_of(*[shape] * count), x, count, outputs, sizes, number

    library.refuses(SHAPE, "'x'", *run((1, 5, 8, 8)))
    library.refuses(SHAPE, "rank 4 [N, C, H, W] or rank 2", *run((1, 6, 8)))
    library.refuses(SHAPE, "expected 1 inputs, got 2", *run((1, 6, 8, 8), 2))
    for sizes in ((0, 6, 8, 8), (-1, 6, 8, 8), (1, 6, -8, 8), (1 << 62, 6, 8, 8), (1, 6, 1 << 40, 1 << 40)):
        library.refuses(SHAPE, "", *run(sizes))
    library.refuses(USAGE, "output_count: expected 1, got 2", *run((1, 6, 8, 8), number=2))
    library.refuses(SHAPE, "expected 3 floats, got 2", *run((1, 6, 8, 8), sizes=(c_size_t * 1)(2)))
    library.refuses(USAGE, "outputs[j]", *run((1, 6, 8, 8), outputs=pointers([None])))
    library.refuses(USAGE, "inputs[i]", "run", engine, shapes_of((1, 6, 8, 8)), pointers([None]), 1, y, room, 1)
    library.refuses(USAGE, "inputs", "run", engine, None, x, 1, y, room, 1)
    library.refuses(SHAPE, "'x'", "context_create", engine, shapes_of((1, 5, 8, 8)), 1, byref(context))
    library.refuses(USAGE, "context: expected a pointer", "context_create", engine, shapes_of((1, 6, 8, 8)), 1, None)
    library.refuses(SHAPE, "'x'", "warm_up", engine, shapes_of((1, 5, 8, 8)), 1)
    assert context.value is None
    assert library.run(engine, [images()])[0].shape == (1, 3)  # none of it did harm
    library("free", engine)


def test_more_memory_than_there_is(library: Library, folder: Path) -> None:
    engine, context = library.load(folder / "net.cosparse", tune=0), c_void_p()
    large = shapes_of((1, 6, 4096, 4096))
    library.run(engine, [images()])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), limits[1]))
    try:
        library.refuses(MEMORY, "memory: expected enough", "context_create", engine, large, 1, byref(context))
        library.refuses(MEMORY, "memory: expected enough", "warm_up", engine, large, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert library.run(engine, [images()])[0].shape == (1, 3)
    library("free", engine)


def test_null_handles_are_refused_or_nothing(library: Library) -> None:
    for name in ("free", "context_free"):
        library(name, None)
    assert [library(name, None) for name in ("input_count", "output_count", "context_step_count", "element_count")] == [0] * 4
    assert library.native.cosparse_context_output(None, 0).rank == 0
    assert library.native.cosparse_context_output_view(None, 0).rank == 0
    for name, count in (
        ("describe", 2),
        ("input", 3),
        ("output", 3),
        ("output_shapes", 5),
        ("output_views", 5),
        ("run", 7),
        ("warm_up", 3),
        ("context_create", 4),
    ):
        filler = [byref(c_void_p())] if name == "context_create" else [None]
        library.refuses(USAGE, "engine: expected a pointer, got NULL", name, None, *[None] * (count - 2), *filler)
    library.refuses(USAGE, "context", "context_run", None, None, None)
    library.refuses(USAGE, "context", "context_profile", None, None, 1, None, 0)


def test_views_of_outputs(library: Library, tmp_path: Path) -> None:
    """As Python gives them, of any rank; an output without one has its array's shape."""
    relu = Node("relu", "activation", ("x",), {"kind": "relu", "alpha": 0.0, "beta": 0.0})
    means = Node("mean", "mean", ("relu",), {"axes": [1, 2, 3], "keep": 1})
    views = ((2, 3, Axis(2), Axis(3)), None, (1, 2, 3, None, 1, 1, 1), ())
    graph = Graph("views", (Input("x", (None, 6, 4, 8)),), ("relu", "relu", "relu", "mean"), (relu, means), views=views)
    artifact.write(tmp_path / "views.cosparse", graph)
    engine, own = library.load(tmp_path / "views.cosparse", tune=0), cosparse.load(tmp_path / "views.cosparse", tune=False)
    for x in (images(1), images(3)[:, :, :4], images(2)[:, :, 1:, :5]):
        shapes, found = shapes_of(x.shape), (View * 4)()
        library.works("output_views", engine, shapes, 1, found, 4)
        context = library.context(engine, x.shape)
        ours = [library.native.cosparse_context_output_view(context, place) for place in range(5)]
        wanted = own(x.copy())
        assert [tuple(view.sizes[: view.rank]) for view in found] == [y.shape for y in wanted]
        assert [bytes(view) for view in ours[:4]] == [bytes(view) for view in found]
        assert all(not any(view.sizes[view.rank :]) for view in found)
        assert ours[4].rank == 0
        for got, view, y in zip(library.run(engine, [x.copy()]), found, wanted, strict=True):
            assert np.array_equal(got.reshape(view.sizes[: view.rank]), y)
        library("context_free", context)
    found = (View * 4)()
    library.refuses(USAGE, "output_count: expected 4, got 3", "output_views", engine, shapes_of((1, 6, 4, 8)), 1, found, 3)
    library.refuses(USAGE, "views: expected a pointer, got NULL", "output_views", engine, shapes_of((1, 6, 4, 8)), 1, None, 4)
    library.refuses(SHAPE, "'x'", "output_views", engine, shapes_of((1, 5, 4, 8)), 1, found, 4)
    assert [view.rank for view in found] == [0] * 4  # nothing was written
    library("free", engine)


def test_a_size_that_a_view_does_not_fit(library: Library, tmp_path: Path) -> None:
    relu = Node("relu", "activation", ("x",), {"kind": "relu", "alpha": 0.0, "beta": 0.0})
    artifact.write(tmp_path / "view.cosparse", Graph("view", (Input("x", (None, 6, 4, 8)),), ("relu",), (relu,), views=((12, 16),)))
    engine, found = library.load(tmp_path / "view.cosparse", tune=0), (View * 1)()
    text = "output 'relu': expected as many numbers as the view [N, 12, 16] has, got [1, 6, 4, 7]"
    library.refuses(SHAPE, text, "output_views", engine, shapes_of((1, 6, 4, 7)), 1, found, 1)
    library.works("output_views", engine, shapes_of((1, 6, 8, 4)), 1, found, 1)
    assert found[0].sizes[:3] == [1, 12, 16]
    library("free", engine)


def test_element_count(library: Library) -> None:
    count = lambda *sizes: library("element_count", byref(shapes_of(sizes)[0]))  # noqa: E731
    assert count(2, 3, 5, 7) == 210
    assert count(2, 3) == 6
    assert count(1, 2, 3) == count(-1, 2) == count(1 << 40, 1 << 40) == 0


def test_contexts_outlive_their_engine_and_later_plans(library: Library, folder: Path) -> None:
    engine = library.load(folder / "net.cosparse", tune=1)
    context = library.context(engine, (2, 6, 8, 8))
    before = library.run_in(context, [images(2)])[0]
    library.works("warm_up", engine, shapes_of((2, 6, 8, 8)), 1)
    library("free", engine)
    assert np.array_equal(library.run_in(context, [images(2)])[0], before)
    library.refuses(USAGE, "outputs[j]", "context_run", context, pointers([images(2)]), pointers([None]))
    library("context_free", context)


def test_profile(library: Library, folder: Path) -> None:
    engine = library.load(folder / "net.cosparse", tune=0)
    context = library.context(engine, (1, 6, 8, 8))
    count, x = library("context_step_count", context), pointers([images()])
    steps = (Step * count)()
    library.works("context_profile", context, x, 3, steps, count)
    rows = cosparse.load(folder / "net.cosparse", tune=False).plan_for((1, 6, 8, 8))
    assert [step.name.decode() for step in steps] == [row.name for row in rows]
    assert [step.multiply_adds for step in steps] == [row.flops + row.basis_flops for row in rows]
    assert all(0 < step.min_us <= step.median_us for step in steps)
    library.refuses(USAGE, "repeat", "context_profile", context, x, 0, steps, count)
    library.refuses(USAGE, "step_count", "context_profile", context, x, 1, steps, count - 1)
    library("context_free", context)
    library("free", engine)


def test_threads_share_an_engine(library: Library, folder: Path) -> None:
    """More callers than contexts, and contexts of their own beside them; ctypes lets go of the GIL."""
    engine = library.load(folder / "net.cosparse", tune=0, threads=2, contexts=2)
    wanted = [library.run(engine, [images(1 + n % 3, n)])[0] for n in range(6)]
    wrong: list[int] = []

    def call(n: int) -> None:
        context = library.context(engine, images(1 + n % 3).shape)
        for _ in range(40):
            pooled, own = library.run(engine, [images(1 + n % 3, n)])[0], library.run_in(context, [images(1 + n % 3, n)])[0]
            if not (np.array_equal(pooled, wanted[n]) and np.array_equal(own, wanted[n])):
                wrong.append(n)
        library("context_free", context)

    team = [threading.Thread(target=call, args=(n,)) for n in range(6)]
    for member in team:
        member.start()
    for member in team:
        member.join()
    assert not wrong
    library("free", engine)


def test_errors_are_those_of_the_thread(library: Library) -> None:
    library.refuses(ARTIFACT, "mine", "load_file", b"mine", None, byref(c_void_p()))
    other = threading.Thread(target=lambda: library("load_file", b"other", None, byref(c_void_p())))
    other.start()
    other.join()
    assert b"mine" in library.error().message


def test_a_warning_reaches_its_handler(library: Library, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path / "file"))  # no folder can be made there
    heard: list[bytes] = []
    handler = c_library.WARNING(lambda text, user: heard.append(text))
    engine = library.load(folder / "net.cosparse", warning=handler)
    assert len(heard) == 1
    library.works("warm_up", engine, shapes_of((3, 6, 9, 9)), 1)
    assert len(heard) == 2
    assert all(b"cache" in text for text in heard)
    library("free", engine)


def test_artifacts_of_later_versions_are_unsupported(library: Library, folder: Path) -> None:
    content = (folder / "net.cosparse").read_bytes().replace(b'\\"version\\":2}', b'\\"version\\":9}')
    assert content != (folder / "net.cosparse").read_bytes()
    library.refuses(UNSUPPORTED, "update cosparse", "load_memory", content, len(content), None, None, byref(c_void_p()))


def test_structures_are_those_of_the_header(library: Library) -> None:
    """Would the sizes differ, ctypes and the library would read different fields."""
    options = library.native.cosparse_options_default()
    assert options.size == ctypes.sizeof(c_library.Options)
    assert (options.abi, options.tune, options.threads) == (library("abi"), 1, 0)
    assert ctypes.sizeof(Step) == 4 * ctypes.sizeof(c_void_p) + 5 * ctypes.sizeof(c_double) + 8
    assert ctypes.sizeof(c_float) == 4
