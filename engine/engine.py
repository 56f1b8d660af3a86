"""Loading an artifact and running it."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from cosparse import _C
from cosparse.engine.arrays import back_to, to_numpy, to_output
from cosparse.engine.artifact import view_of
from cosparse.engine.buffers import require_apart
from cosparse.engine.log import logger
from cosparse.engine.plan import Plan, PlanRow, ProfileRow
from cosparse.errors import Error, ShapeError, UnsupportedError
from cosparse.kernels.view import View


@dataclass(frozen=True)
class ValueSpec:
    """Name, shape (None for the batch) and dtype of an input or output.

    `view`: of an output that is given in another shape than the stored value's, what decides `shape` (cosparse.kernels.view).
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    view: View | None = None

    @property
    def free(self) -> tuple[int, ...]:
        """The axes behind the batch whose sizes may follow from the height and width of the network's inputs."""
        if self.view is None:
            return (2, 3) if len(self.shape) == 4 else ()
        return tuple(place for place, entry in enumerate(self.view, 1) if not isinstance(entry, int))


def output_specs(names: Sequence[str], views: Sequence[View | None], shapes: Sequence[Sequence[int]]) -> tuple[ValueSpec, ...]:
    """`shapes`: those at batch 1 and the example's size."""
    views = views or (None,) * len(names)
    return tuple(ValueSpec(name, (None, *shape[1:]), "float32", view) for name, view, shape in zip(names, views, shapes, strict=True))


class Engine:
    """A network ready to run; make one with `load`.

    One engine may be called from many threads at once: each call has its own memory, and the answers are bitwise the same whoever
    else calls. At most `contexts` calls run at once, others wait for their memory.
    """

    def __init__(
        self,
        artifact: Any,
        *,
        threads: int,
        isa: str = "",
        tile: int = 0,
        tune: bool = False,
        dense: bool = False,
        poison: bool = False,
        dtype: str = "float32",
        calibration: Sequence[Sequence[numpy.ndarray]] = (),
        take_over: bool = False,
        contexts: int = 0,
        cores: Sequence[int] = (),
        max_memory: int = 0,
        winograd: bool | None = None,
    ) -> None:
        """take_over: each stored tensor is freed as soon as it is packed, so that the weights lie in memory once; `artifact` loses them."""
        for option, number in (("threads", threads), ("tile", tile), ("contexts", contexts), *(("cores", core) for core in cores)):
            _require_bits(option, number, 32)
        _require_bits("max_memory", max_memory, 64)
        samples = [list(s) for s in calibration]
        self._native = _C.Engine(
            artifact,
            threads,
            _utf8(isa),
            tile,
            tune,
            dense,
            poison,
            _utf8(dtype),
            samples,
            take_over,
            contexts,
            list(cores),
            max_memory,
            winograd,
        )
        for text in self._native.warnings:
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        log = logger()
        if tune:
            log.info("%d kinds of layer measured; tuning cache: %s", self._native.measured, self._native.cache or "none")
        document = json.loads(artifact.json)
        self.name: str = document["name"]
        self.file_bytes: int = artifact.file_bytes
        self.inputs = tuple(ValueSpec(i["name"], tuple(i["shape"]), i["dtype"]) for i in document["inputs"])
        shapes = _C.output_shapes(artifact, [self._example_shape(i, 1) for i in range(len(self.inputs))])
        self.outputs = output_specs(document["outputs"], [view_of(v) for v in document.get("views", ())], shapes)
        self.metadata: dict[str, Any] = {
            "name": self.name,
            "preprocessing": document["preprocessing"],
            "provenance": document["provenance"],
        }
        self.ready = False

    device = "cpu"

    @property
    def dtype(self) -> str:
        """What convolutions multiply: float32, bfloat16 or int8. Inputs and outputs are float32 whatever it is."""
        return self._native.dtype

    @property
    def isa(self) -> str:
        return self._native.isa

    @property
    def threads(self) -> int:
        return self._native.threads

    @property
    def contexts(self) -> int:
        """Calls that may run at once, each in working memory of its own."""
        return self._native.contexts

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in the form that the kernels read."""
        return self._native.weight_bytes

    @property
    def arena_bytes(self) -> int:
        """Bytes of activations and scratch that a call works in: the most so far."""
        return self._native.arena_bytes

    def __call__(self, *inputs: Any, out: Any = None) -> Any:
        """Runs the network.

        inputs: one array for each of `self.inputs`, [N, C, H, W] or [N, F], float32; numpy, torch or anything with DLPack.
        out: memory for the answer (a sequence where the network has several outputs); written without a copy and returned. It may overlap
            neither an input nor other memory of `out`: a large batch runs in parts, whose answers would lie over what later parts read.
        Returns an array of the first input's kind, or a tuple of them, in the shapes that `self.outputs` state for the example.
        Raises ShapeError, MemoryLimitError, Error.
        """
        arrays = self._arrays(inputs)
        if out is None:
            results = self._native.run(arrays)
            convert = back_to(inputs[0])
            answer = tuple(convert(array) for array in results)
        else:
            answer = self._buffers(out)
            buffers = [to_output(buffer, spec.name) for buffer, spec in zip(answer, self.outputs, strict=True)]
            require_apart(zip(arrays, self.inputs, strict=True), zip(buffers, self.outputs, strict=True))
            self._native.run(arrays, buffers)
        self.ready = True
        return answer if len(self.outputs) > 1 else answer[0]

    def _buffers(self, out: Any) -> tuple[Any, ...]:
        """`out` as one buffer for each output."""
        if len(self.outputs) == 1:
            return (out,)
        if not isinstance(out, tuple | list) or len(out) != len(self.outputs):
            got = f"{len(out)} of them" if isinstance(out, tuple | list) else type(out).__name__
            raise Error("out", f"a sequence of {len(self.outputs)} arrays, one for each output", got)
        return tuple(out)

    @property
    def plan(self) -> Plan:
        """The plan at batch 1 and the example's size; `plan_for` gives others."""
        return self.plan_for(*(self._example_shape(i, 1) for i in range(len(self.inputs))))

    def plan_for(self, *shapes: Sequence[int]) -> Plan:
        batch, rows = self._native.plan(_sizes(shapes))
        sizes = tuple(tuple(s) for s in shapes)
        return Plan(self.name, sizes, self.isa, self.threads, tuple(PlanRow(**row) for row in rows), batch)

    def profile(self, *inputs: Any, repeat: int = 50) -> list[ProfileRow]:
        """Times every step over `repeat` runs, in a run of its own, so that it does not disturb other timings."""
        if repeat < 1:
            raise Error("repeat", "at least 1", str(repeat))
        _require_bits("repeat", repeat, 32)
        arrays = self._arrays(inputs)
        times = self._native.profile(arrays, repeat)
        total = sum(median for median, _ in times) or 1.0
        plan = self.plan_for(*(array.shape for array in arrays))
        return [
            ProfileRow(
                row.name,
                row.op,
                row.kernel,
                median,
                best,
                median / total,
                2e-3 * row.flops / max(median, 1e-3) if median else 0.0,
                2e-3 * row.dense_flops / max(median, 1e-3) if median else 0.0,
            )
            for row, (median, best) in zip(plan, times, strict=True)
        ]

    def warmup(self, batches: Sequence[int] = (1,)) -> Engine:
        """Measures, plans and allocates for these batch sizes at the example's size (`warmup_for`); afterwards `ready` is true."""
        for batch in batches:
            self.warmup_for(*(self._example_shape(i, batch) for i in range(len(self.inputs))))
        self.ready = True
        return self

    def warmup_for(self, *shapes: Sequence[int]) -> Engine:
        """The same for one shape of each input.

        Loading measures tiles at the example's size; elsewhere a rule chooses them until this has measured them too. It also measures
        whether a batch had better run apart, each thread with images of its own; a batch that was called before stays as it is. What it
        finds is kept in the tuning cache, and `plan_for` says so. An engine that was loaded with tune=False or a tile keeps its rule.
        It may be called beside other calls, which make its measurements worse. Raises ShapeError.
        """
        sizes = _sizes(shapes)
        warning = self._native.tune(sizes)
        if warning:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)
        self._native.plan(sizes)  # which refuses what does not fit, before memory for it is asked for; the run finds it made
        self._native.run([numpy.zeros(shape, numpy.float32) for shape in sizes])
        self.ready = True
        return self

    def _arrays(self, inputs: Sequence[Any]) -> list[numpy.ndarray]:
        if len(inputs) != len(self.inputs):
            raise Error(f"network '{self.name}'", f"{len(self.inputs)} inputs ({', '.join(i.name for i in self.inputs)})", str(len(inputs)))
        return [to_numpy(value, spec.name) for value, spec in zip(inputs, self.inputs, strict=True)]

    def _example_shape(self, index: int, batch: int) -> tuple[int, ...]:
        return tuple(batch if size is None else size for size in self.inputs[index].shape)

    def __repr__(self) -> str:
        return f"<cosparse.Engine {self.name}: {self.device}, {self.dtype}, {self.isa}, {self.threads} threads>"


def load(
    path: str | os.PathLike[str],
    device: str = "cpu",
    threads: int | None = None,
    dtype: str | None = None,
    isa: str | None = None,
    tile: int = 0,
    tune: bool = True,
    dense: bool = False,
    poison: bool = False,
    calibration: Any = None,
    contexts: int | None = None,
    cores: Sequence[int] | None = None,
    max_memory: int | None = None,
    winograd: bool | None = None,
) -> Engine:
    """Reads and checks an artifact and makes it ready to run.

    threads: how many, the caller included; default one for each of `cores` where they are given, else COSPARSE_THREADS, else one for each
        core that this process may use.
    dtype: what convolutions multiply. "float32" (default); "bfloat16": weights and activations rounded to it, sums in float32; "int8":
        rounded to 8 bits, needs `calibration`. Without the instructions (amx, avx512_bf16, avx512_vnni) both are emulated, which is slower.
    calibration: sample input for int8, an array as the engine is called with, or a tuple of them where it has several inputs.
    isa: "scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16" or "amx"; default COSPARSE_ISA, else the machine's best.
    tile: vectors of pixels a tile of convolution, 0 for the plan's choice.
    tune: time each layer in every form it has (cosparse, spatial, dense, winograd) and with several tiles, at batch 1 and the example's
        size, and take the fastest; results are kept in the tuning cache (COSPARSE_CACHE). Without it a rule decides. `Engine.warmup`
        measures the tiles for other batches, and how these are shared out among the threads.
    dense: run every layer with all its weights, stored zeros and all, in the faster of the dense forms (dense, winograd): what sparsity
        is measured against.
    winograd: whether 3x3 layers at stride 1 may run by Winograd's tiles, which take a quarter of the multiplications and err about twice as
        much as plain sums; a number that is NaN or infinite spreads over its tile of 4x4 pixels. None: where that is measured to be the
        fastest (float32 and `tune` only); False: nowhere; True: in every such layer, whatever it takes.
    contexts: calls that run at once, each in memory of its own; more wait. Default: as many as threads or usable cores, the larger.
    cores: numbers of cores on which the engine's workers stay, and beside which its weights lie (on a machine of several NUMA nodes, those
        of one). The thread that calls stays where it is: os.sched_setaffinity moves it.
    max_memory: bytes that the activations of one call may take at the most, and as many the packed weights. Default: what the machine and
        this process's control group have left at that moment. What needs more is refused before it is planned or packed.
    poison: fill working memory with NaN before each run, so that a value that no step writes shows; for tests.
    Raises ArtifactError for a file that is no valid artifact, UnsupportedError for a device or dtype that this build has no kernels
    for, MemoryLimitError for one that needs more than `max_memory`, Error for bad options.
    """
    if names_gpu(device):
        if any(option is not None for option in (contexts, cores, max_memory, winograd)):
            raise UnsupportedError(
                "contexts, cores, max_memory, winograd", "device='cpu'", repr(device), "leave them out: they are of the CPU engine"
            )
        return _on_gpu(path, device, dtype, tune=tune, dense=dense)
    start = time.perf_counter()
    artifact = _C.read_artifact(path)
    samples = calibration if isinstance(calibration, tuple) else () if calibration is None else (calibration,)
    engine = Engine(
        artifact,
        threads=threads if threads is not None else len(cores) if cores else default_threads(),
        isa=isa or "",
        tile=tile,
        tune=tune and tile == 0 and not poison,
        dense=dense,
        poison=poison,
        dtype=dtype or "float32",
        calibration=[[to_numpy(value, f"calibration[{i}]") for i, value in enumerate(samples)]] if samples else [],
        take_over=True,
        contexts=_at_least_one("contexts", contexts),
        cores=cores or (),
        max_memory=_at_least_one("max_memory", max_memory),
        winograd=winograd,
    )
    logger().info("%s loaded in %.0f ms: %r", os.fspath(path), (time.perf_counter() - start) * 1e3, engine)
    return engine


def _on_gpu(path: str | os.PathLike[str], device: str, dtype: str | None, *, tune: bool, dense: bool) -> Any:
    try:
        from cosparse.engine.gpu.engine import load_gpu
    except ImportError as error:
        raise UnsupportedError("device", "torch and triton for a GPU", str(error), "pip install 'cosparse[gpu]'") from error
    return load_gpu(path, device, dtype, tune=tune, dense=dense)


def names_gpu(device: str, about: str = "device") -> bool:
    """Whether it names a GPU; UnsupportedError for anything but cpu, cuda and cuda:N."""
    if device != "cpu" and not (isinstance(device, str) and re.fullmatch(r"cuda(:[0-9]{1,3})?", device)):
        raise UnsupportedError(about, "cpu, cuda or cuda:N", repr(device))
    return device != "cpu"


def default_threads() -> int:
    """COSPARSE_THREADS, else the number of cores that this process may use."""
    return _C.default_threads()


def _at_least_one(option: str, number: int | None) -> int:
    if number is not None and number < 1:
        raise Error(option, "at least 1, or None for what the machine has", repr(number))
    return number or 0


def _require_bits(option: str, number: int, bits: int) -> None:
    """Error for what the runtime's signed integers cannot hold; it refuses what makes no sense of the others itself."""
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise Error(option, f"a whole number of {bits} bits", str(number))


def _sizes(shapes: Sequence[Sequence[int]]) -> list[list[int]]:
    for shape in shapes:
        if any(not -(2**63) <= size < 2**63 for size in shape):
            raise ShapeError("shape", "sizes of at most 64 bits", str(list(shape)))
    return [list(shape) for shape in shapes]


def _utf8(word: str) -> str:
    """As the runtime can read it, to refuse it: stray bytes of a command line stand as escapes."""
    return str(word).encode("utf-8", "backslashreplace").decode()
