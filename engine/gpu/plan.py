"""How one network runs at one set of shapes: its steps, where their values lie, and the form of each convolution."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod

import torch
from triton.runtime.errors import OutOfResources

from cosparse.engine.gpu import forms
from cosparse.engine.gpu.arena import arrange, lifetimes
from cosparse.engine.gpu.forms import Form
from cosparse.engine.gpu.fuse import HEADS, Step, fuse, join, pool_in
from cosparse.engine.gpu.measure import Cache, microseconds
from cosparse.engine.gpu.together import compile_together
from cosparse.engine.graph import Graph, drop_nodes
from cosparse.errors import UnsupportedError
from cosparse.kernels.conv import weight_shape
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue
from cosparse.kernels.gpu.launches import LAUNCHES
from cosparse.kernels.gpu.planes import Planes, stride_of

Shape = tuple[int, int, int, int]


def four(shape: Sequence[int]) -> Shape:
    """[N, F] is [N, F, 1, 1]."""
    n, c, h, w = (*shape, 1, 1)[:4]
    return n, c, h, w


def without_renames(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Graph:
    """The graph without the reshapes that change nothing in memory: [N, F, 1, 1] to [N, F]."""
    same = [n for n in graph.nodes if n.op == "reshape" and four(shapes[n.name]) == four(shapes[n.inputs[0]])]
    return drop_nodes(graph, {node.name: node.inputs[0] for node in same})


@dataclass(frozen=True, eq=False)
class Launch:
    """One launch of the plan with all its memory, and what is known of it: `us` where it was measured, `why` it is this form."""

    step: Step
    run: Callable[[], None]
    form: str
    density: float
    bytes: int
    dense_flops: float
    us: float | None
    why: str


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution's step at its place in memory, the forms that can run it there, and what their measurements are kept under; `pixels`
    that it convolves, before a pool."""

    step: Step
    inputs: list[Planes]
    out: Planes
    epilogue: Epilogue
    pixels: int
    candidates: list[Form]
    signature: str
    backwards: bool

    def launch(self, form: Form) -> Callable[[], None]:
        """The form with the layer's place in memory."""
        return partial(form.run, self.inputs, self.out, self.epilogue, self.backwards)


@dataclass(eq=False)
class Built:
    """A plan in memory: the arena, the values that the caller's tensors go to and come from, the launches in order."""

    memory: torch.Tensor
    inputs: list[Planes]
    outputs: list[Planes]
    launches: list[Launch] = field(default_factory=list)

    def run(self) -> None:
        for launch in self.launches:
            launch.run()


class Planner:
    """Keeps each layer's forms on the device, for all shapes alike."""

    def __init__(self, graph: Graph, device: torch.device, dtype: str, tune: bool, dense: bool) -> None:
        self.graph, self.device, self.tune, self.dense = graph, device, tune, dense
        self.dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
        self.cache = Cache(device, dtype)
        self.forms: dict[tuple[str, str], list[Form]] = {}
        self.biases: dict[str, torch.Tensor | None] = {}

    def build(self, shapes: Mapping[str, Sequence[int]]) -> Built:
        """`shapes`: of every value."""
        graph = without_renames(self.graph, shapes)
        names, outputs = [i.name for i in graph.inputs], list(graph.outputs)
        steps = pool_in(join(fuse(graph, shapes, tuple(ACTS)), outputs), shapes, outputs, self.device)
        lives = lifetimes(steps, names, outputs)
        sizes = {name: 2 * four(shapes[name])[1] * stride_of(four(shapes[name])) for name in lives}
        arena = arrange(lives, sizes)
        memory = torch.zeros(arena.bytes, dtype=torch.uint8, device=self.device)
        memory.view(self.dtype).normal_()  # what forms are timed on; zeros would run faster than real numbers
        values = {}
        for name, offset in arena.offsets.items():
            shape = four(shapes[name])
            data = memory[offset : offset + sizes[name]].view(self.dtype).view(shape[1], stride_of(shape))
            values[name] = Planes(data, shape)
        built = Built(memory, [values[name] for name in names], [values[name] for name in outputs])
        # Every second step goes from the last pixel to the first: what the one before wrote last is still in the L2.
        layers = {
            step.output: self._layer(step, values, four(shapes[step.node.name]), place % 2 == 1)
            for place, step in enumerate(steps)
            if step.node.op in HEADS
        }
        if self.tune and self.device.type == "cuda":
            compile_together(self.device, self._unmeasured(layers.values()))
        for step in steps:
            built.launches.append(self._convolution(layers[step.output]) if step.output in layers else _other(step, values))
        return built

    def _layer(self, step: Step, values: Mapping[str, Planes], convolved: Shape, backwards: bool) -> Layer:
        inputs, out = [values[name] for name in step.inputs], values[step.output]
        residual = values[step.residual] if step.residual else None
        epilogue = Epilogue(self._bias(step), residual, step.act, step.alpha, step.beta)
        key = (step.name, step.act)
        if key not in self.forms:
            self.forms[key] = list(forms.forms(step, self.dtype, self.device, self.dense))
        pixels = convolved[0] * convolved[2] * convolved[3]
        candidates = [form for form in self.forms[key] if forms.fits(form, pixels, inputs[0].shape[3], convolved[3])]
        return Layer(step, inputs, out, epilogue, pixels, candidates, _signature(step, inputs[0].shape, candidates), backwards)

    def _unmeasured(self, layers: Iterable[Layer]) -> list[Callable[[], None]]:
        """Launches whose kernels are yet to be measured, of equal layers once."""
        found: dict[tuple[str, str], Callable[[], None]] = {}
        for layer in layers:
            times = self.cache.layers.get(layer.signature, {})
            for form in layer.candidates if len(layer.candidates) > 1 else []:
                if form.triton and form.name not in times:
                    found[layer.signature, form.name] = layer.launch(form)
        return list(found.values())

    def _convolution(self, layer: Layer) -> Launch:
        form, us, why = self._choose(layer)
        step = layer.step
        nodes = [step.node] if step.shortcut is None else [step.node, step.shortcut]
        flops = float(layer.pixels * sum(prod(weight_shape(node)) for node in nodes))
        run = layer.launch(form)
        return Launch(step, run, form.name, form.density, form.bytes, flops, us, why)

    def _choose(self, layer: Layer) -> tuple[Form, float | None, str]:
        step, candidates = layer.step, layer.candidates
        if not self.tune or len(candidates) == 1:
            return candidates[0], None, "the only form" if len(candidates) == 1 else "not measured: the first form that fits"
        times = self.cache.layers.setdefault(layer.signature, {})
        new = [form for form in candidates if form.name not in times]
        for form in new:
            times[form.name] = _measured(form, layer)
        if new:
            self.cache.save()  # at once: what a run that is interrupted has measured is kept
        able = {form: us for form in candidates if (us := times[form.name]) is not None}
        if not able:
            got = f"{len(candidates)} that all fail"
            expected = f"a form that runs at {layer.inputs[0].shape}"
            raise UnsupportedError(f"node {step.name} ({step.node.op})", expected, got, "run it on the CPU")
        best = min(able, key=lambda form: able[form])
        families: dict[str, float] = {}
        for form, us in able.items():
            family = form.name.partition("/")[0]
            families[family] = min(families.get(family, us), us)
        others = ", ".join(f"{family} {us:.1f}" for family, us in sorted(families.items(), key=lambda item: item[1]))
        return best, able[best], f"measured, us: {others}"

    def _bias(self, step: Step) -> torch.Tensor | None:
        if step.name not in self.biases:
            nodes = [step.node] if step.shortcut is None else [step.node, step.shortcut]
            found = [node.tensors["bias"] for node in nodes if "bias" in node.tensors]
            self.biases[step.name] = torch.from_numpy(sum(found[1:], found[0].copy())).to(self.device) if found else None
        return self.biases[step.name]


def _measured(form: Form, layer: Layer) -> float | None:
    """us of the form; None where this device cannot run it: too little shared memory, a window that its kernel does not know."""
    try:
        return microseconds(layer.launch(form))
    except (UnsupportedError, OutOfResources):
        return None


def _other(step: Step, values: Mapping[str, Planes]) -> Launch:
    inputs, out, launch = [values[name] for name in step.reads], values[step.output], LAUNCHES[step.node.op]
    return Launch(step, lambda: launch(step.node, inputs, out), step.node.op, 1.0, 0, 0.0, None, "")


def _signature(step: Step, shape: Shape, candidates: Sequence[Form]) -> str:
    """What a measurement holds for: the layer's sizes and density, the input's shape, what is fused. Equal layers share it."""
    key = [step.node.op, step.node.attrs, shape, bool(step.residual), step.act, "bias" in step.node.tensors]
    key += [node.attrs for node in (step.shortcut, step.pool) if node is not None]
    key += [[form.name, round(form.density, 3), form.bytes] for form in candidates]
    text = "x".join(map(str, shape)) + f" -> {step.node.attrs['filters']} "
    return text + hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()
