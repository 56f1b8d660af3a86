"""Loading an artifact on a GPU and running it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cosparse import _C
from cosparse.engine import artifact
from cosparse.engine.engine import ValueSpec, output_specs
from cosparse.engine.gpu.dense_network import DenseNetwork
from cosparse.engine.gpu.measure import microseconds, replay_us
from cosparse.engine.gpu.plan import Built, Planner
from cosparse.engine.plan import Plan, PlanRow, ProfileRow
from cosparse.errors import Error, ShapeError, UnsupportedError
from cosparse.kernels.gpu import boundary
from cosparse.kernels.view import viewed

DTYPES = ("float16", "bfloat16")
OLDEST = (8, 0)
"""Compute capability from which matrix instructions of these kernels exist."""

MOST_SHAPES = 32
"""Sets of input shapes that an engine keeps ready, so that a server that meets ever new ones does not fill the device."""

Shapes = tuple[tuple[int, ...], ...]


@dataclass(eq=False)
class Ready:
    """One set of shapes: memory at fixed places, and the graph that goes from `inputs` to `outputs` in one launch.

    `us` is what it takes, where that was measured, and `dense` the network in torch's operators if that takes less: `us` is then its time.
    """

    built: Built
    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]
    graph: torch.cuda.CUDAGraph | None = None
    dense: DenseNetwork | None = None
    us: float | None = None
    why: str = ""

    def run(self) -> None:
        if self.graph is not None:
            self.graph.replay()
        elif self.dense is not None:
            for tensor, result in zip(self.outputs, self.dense(self.inputs), strict=True):
                tensor.copy_(result)
        else:
            for tensor, planes in zip(self.inputs, self.built.inputs, strict=True):
                boundary.read(tensor, planes)
            self.built.run()
            for planes, tensor in zip(self.built.outputs, self.outputs, strict=True):
                boundary.write(planes, tensor)

    def capture(self) -> None:
        """Makes `run` one launch. Everything has to have run once before."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads go on allocating
            self.run()
        self.graph = graph


class GpuEngine:
    """A network ready to run on one GPU; made by `cosparse.load(device="cuda")`.

    Each set of input shapes has memory and a CUDA graph of its own, made at its first call or by `warmup`; of more than MOST_SHAPES the one
    used longest ago is given up. A call runs on the caller's stream; calls from several threads or streams run one after the other.
    """

    def __init__(
        self, path: str | os.PathLike[str], device: torch.device, dtype: str, tune: bool = True, dense: bool = False, compare: bool = False
    ) -> None:
        """`compare`: each set of shapes also with the whole network in torch's dense operators, and the faster of the two is kept."""
        self._checked = _C.read_artifact(path)
        graph = artifact.read(path)
        self._device, self.dtype = device, dtype
        self.name, self.file_bytes = graph.name, self._checked.file_bytes
        self.inputs = tuple(ValueSpec(i.name, i.shape, i.dtype) for i in graph.inputs)
        self.outputs = output_specs(graph.outputs, graph.views, _C.output_shapes(self._checked, [list(s) for s in self._example(1)]))
        self.metadata: dict[str, Any] = {"name": graph.name, "preprocessing": graph.preprocessing, "provenance": graph.provenance}
        self._planner = Planner(graph, device, dtype, tune, dense)
        self._ready: dict[Shapes, Ready] = {}
        self._compare = compare
        self._lock = threading.Lock()
        self._done: torch.cuda.Event | None = None
        self.ready = False

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def isa(self) -> str:
        if self._device.type != "cuda":
            return "interpreter"
        return "sm_{}{}".format(*torch.cuda.get_device_capability(self._device))

    def __call__(self, *inputs: Any, out: Any = None) -> Any:
        """Runs the network on [N, C, H, W] or [N, F], float32 or float16, of torch on this device, or anything with DLPack or numpy.

        Returns float32 tensors on the device, of numpy on the CPU where the first input was numpy's. `out`: tensors to write. The caller's
        current stream does the work; nothing waits for it.
        """
        if len(inputs) != len(self.inputs):
            raise Error(f"network '{self.name}'", f"{len(self.inputs)} inputs ({', '.join(i.name for i in self.inputs)})", str(len(inputs)))
        given = [self._tensor(value, spec.name) for value, spec in zip(inputs, self.inputs, strict=True)]
        with self._lock, self._on_device():
            ready = self._prepare(tuple(tuple(x.shape) for x in given))
            if self._done is not None:
                self._done.wait()  # another stream may still be reading this engine's memory
            for mine, theirs in zip(ready.inputs, given, strict=True):
                mine.copy_(theirs, non_blocking=True)
            ready.run()
            answer = self._answer(ready, out)
            if self._device.type == "cuda":
                self._done = self._done or torch.cuda.Event()
                self._done.record()
        self.ready = True
        if out is None and type(inputs[0]).__module__ == "numpy":
            answer = tuple(y.cpu().numpy() for y in answer)
        return answer if len(self.outputs) > 1 else answer[0]

    def _answer(self, ready: Ready, out: Any) -> tuple[Any, ...]:
        if out is None:
            return tuple(viewed(y.clone(), spec.view) for y, spec in zip(ready.outputs, self.outputs, strict=True))
        given = tuple(out) if len(self.outputs) > 1 else (out,)
        if len(given) != len(ready.outputs):
            raise Error("out", f"{len(ready.outputs)} tensors", str(len(given)))
        for y, theirs, spec in zip(ready.outputs, given, self.outputs, strict=True):
            mine = viewed(y, spec.view)
            if tuple(theirs.shape) != tuple(mine.shape):
                raise ShapeError(f"out for output '{spec.name}'", str(list(mine.shape)), str(list(theirs.shape)))
            theirs.copy_(mine, non_blocking=True)
        return given

    def warmup(self, batches: Sequence[int] = (1,)) -> GpuEngine:
        """Measures, plans, allocates and captures for these batch sizes at the example's size; afterwards `ready` is true."""
        for batch in batches:
            self.warmup_for(*self._example(batch))
        return self

    def warmup_for(self, *shapes: Sequence[int]) -> GpuEngine:
        """The same for one shape of each input. Raises ShapeError."""
        with self._lock, self._on_device():
            self._prepare(tuple(tuple(int(n) for n in shape) for shape in shapes))
        self.ready = True
        return self

    def replay(self, *shapes: Sequence[int]) -> Callable[[], None]:
        """A function that runs the network of these shapes once on the engine's own memory: what a benchmark times."""
        self.warmup_for(*shapes)
        return self._ready[tuple(tuple(shape) for shape in shapes)].run

    @property
    def plan(self) -> Plan:
        """The plan at batch 1 and the example's size; `plan_for` gives others."""
        return self.plan_for(*self._example(1))

    def plan_for(self, *shapes: Sequence[int]) -> Plan:
        self.warmup_for(*shapes)
        rows = []
        ready = self._ready[tuple(tuple(shape) for shape in shapes)]
        for launch in ready.built.launches:
            node, form, density = launch.step.node, launch.form, launch.density
            if ready.dense is not None:
                form, density = ("cudnn", 1.0) if launch.dense_flops else ("torch", density)
            fused = f"{form}+add" if launch.step.residual else f"{form}+shortcut" if launch.step.shortcut else form
            kernel = fused if launch.step.act == "none" else f"{fused}+{launch.step.act}"
            kernel = f"{kernel}+{launch.step.pool.op}" if launch.step.pool else kernel
            why = ready.why if ready.dense is not None else launch.why
            flops = launch.dense_flops
            rows.append(PlanRow(launch.step.name, node.op, kernel, density, flops * density, 0.0, flops, launch.bytes, why))
        return Plan(self.name, tuple(tuple(shape) for shape in shapes), self.isa, 1, tuple(rows))

    def profile(self, *inputs: Any, repeat: int = 50) -> list[ProfileRow]:
        """Times every step of our own plan alone, also where the whole network runs in torch's operators (`plan_for` says so); `repeat`
        launches in a graph of their own. What a step reads may lie in L2, as between layers."""
        if repeat < 1:
            raise Error("repeat", "at least 1", str(repeat))
        shapes = tuple(tuple(self._tensor(value, spec.name).shape) for value, spec in zip(inputs, self.inputs, strict=True))
        plan = self.plan_for(*shapes)
        with self._lock, self._on_device():
            times = [microseconds(launch.run, repeat) for launch in self._ready[shapes].built.launches]
        total = sum(times) or 1.0
        return [
            ProfileRow(row.name, row.op, row.kernel, us, us, us / total, 2e-3 * row.flops / us, 2e-3 * row.dense_flops / us)
            for row, us in zip(plan, times, strict=True)
        ]

    def _prepare(self, shapes: Shapes) -> Ready:
        ready = self._ready.pop(shapes, None) or self._make(shapes)
        if len(self._ready) >= MOST_SHAPES:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # it may still be running
            del self._ready[next(iter(self._ready))]
        self._ready[shapes] = ready  # the latest used stands last
        return ready

    def _make(self, shapes: Shapes) -> Ready:
        try:
            sizes = self._shapes(shapes)
            built = self._planner.build(sizes)
            inputs = [torch.zeros(shape, dtype=self._planner.dtype, device=self._device) for shape in shapes]
            outputs = [torch.empty(sizes[spec.name], dtype=torch.float32, device=self._device) for spec in self.outputs]
            ready = Ready(built, inputs, outputs)
            ready.run()  # compiles what no measurement has compiled
            if self._device.type == "cuda":
                ready.capture()
            if self._compare:
                ready = self._faster(ready, shapes)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info(self._device)
            got = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            raise Error(f"inputs {list(shapes)} on {self.device}", "enough device memory", got, "run a smaller batch") from error
        return ready

    def _faster(self, ready: Ready, shapes: Shapes) -> Ready:
        """`ready`, or the whole network in torch's dense operators where that is measured to be faster."""
        dense = DenseNetwork(self._planner.graph, self._shapes(shapes), self._planner.dtype, self._device)
        other = Ready(ready.built, ready.inputs, ready.outputs, dense=dense)
        if self._device.type == "cuda":
            with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # cuDNN measures its algorithms too
                other.run()
                other.capture()
        ready.us, other.us = replay_us(ready.run), replay_us(other.run)
        best = min((ready, other), key=lambda one: one.us or 0.0)
        best.why = f"whole network, us: our layers {ready.us:.0f}, dense by cuDNN {other.us:.0f}"
        return best

    def _shapes(self, shapes: Sequence[Sequence[int]]) -> dict[str, tuple[int, ...]]:
        return dict(_C.infer_shapes(self._checked, [list(shape) for shape in shapes]))

    def _example(self, batch: int) -> Shapes:
        return tuple(tuple(batch if size is None else size for size in spec.shape) for spec in self.inputs)

    def _tensor(self, value: Any, name: str) -> torch.Tensor:
        if type(value).__module__ == "numpy":
            value = torch.from_numpy(value)
        elif not isinstance(value, torch.Tensor):
            if not hasattr(value, "__dlpack__"):
                raise Error(f"input '{name}'", "numpy, torch or an array with DLPack", type(value).__name__)
            value = torch.from_dlpack(value)
        if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise Error(f"input '{name}'", "dtype float32, float16 or bfloat16", str(value.dtype), "convert it")
        return value.detach()

    def _on_device(self) -> Any:
        return torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()

    def __repr__(self) -> str:
        return f"<cosparse.GpuEngine {self.name}: {self.device}, {self.dtype}, {self.isa}>"


def load_gpu(
    path: str | os.PathLike[str],
    device: str = "cuda",
    dtype: str | None = None,
    *,
    tune: bool = True,
    dense: bool = False,
    compare: bool = True,
) -> GpuEngine:
    """Reads and checks an artifact and makes it ready to run on a GPU.

    dtype: what is multiplied and kept between layers, float16 (default) or bfloat16; sums are float32.
    tune: measure the forms of every layer; without it a rule decides. dense: only forms that multiply by every weight.
    compare: with `tune`, run the whole network in torch's dense operators at the shapes where that is faster.
    Raises ArtifactError, UnsupportedError for a device or dtype that there is none of.
    """
    dtype = dtype or "float16"
    if dtype not in DTYPES:
        raise UnsupportedError("dtype", " or ".join(DTYPES), dtype, "a GPU multiplies in 16 bits here; float32 runs on the CPU")
    place = torch.device(device)
    if place.type == "cuda":
        count = torch.cuda.device_count()
        if (place.index or 0) >= count:
            found = f"{count} CUDA devices" if count else "no CUDA device"
            raise UnsupportedError(
                "device", "a CUDA device of this machine", f"{device}; {found}", "`cosparse doctor` tells what is missing"
            )
        capability = torch.cuda.get_device_capability(place)
        if capability < OLDEST:
            raise UnsupportedError(f"device {device}", "compute capability 8.0 or newer", "{}.{}".format(*capability), "run it on the CPU")
    tune = tune and place.type == "cuda"
    return GpuEngine(path, place, dtype, tune, dense, compare and tune and not dense)
