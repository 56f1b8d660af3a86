"""Which nodes run in one launch: a convolution takes the addition and the activation that follow it into its epilogue, and the last layer
of a residual block the projection of its shortcut (`join`), a stem or a layer of small images the max pool behind it (`pool_in`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from cosparse.engine.graph import Graph, Node, consumers
from cosparse.kernels.gpu import cuda_library, stem
from cosparse.kernels.gpu.joined import supports
from cosparse.kernels.gpu.pool import is_halving

HEADS = ("conv", "linear")
AND = " + "
"""Between the names of nodes that are one step, neither of them an addition or an activation."""


@dataclass(frozen=True, eq=False)
class Step:
    """One launch: `node` on `inputs`, then `residual` added (a value's name, or empty), then `act`; gives the value `output`.

    `shortcut`: a convolution of the second input that is added too; `pool`: a max pool behind `act`."""

    node: Node
    inputs: tuple[str, ...]
    output: str
    residual: str = ""
    act: str = "none"
    alpha: float = 0.0
    beta: float = 0.0
    shortcut: Node | None = None
    pool: Node | None = None

    @property
    def name(self) -> str:
        return AND.join(node.name for node in (self.node, self.shortcut, self.pool) if node is not None)

    @property
    def reads(self) -> tuple[str, ...]:
        """The values whose numbers the launch reads: of `constant` none, which takes the batch alone."""
        if self.node.op == "constant":
            return ()
        return (*self.inputs, self.residual) if self.residual else self.inputs


def fuse(graph: Graph, shapes: Mapping[str, Sequence[int]], acts: Sequence[str]) -> list[Step]:
    """The steps in the order in which they can run. An addition is taken in where both sides have one shape, an activation where `acts`
    names it; each only if nobody else reads what comes before it.
    """
    readers, nodes = consumers(graph), {node.name: node for node in graph.nodes}
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    taken: set[str] = set()
    steps = []
    for node in graph.nodes:
        if node.name in taken:
            continue
        step = Step(node, node.inputs, node.name)
        if node.op in HEADS:
            while (following := _follower(step, readers, nodes, graph.outputs)) is not None and following.name not in taken:
                longer = _with(step, following, shapes, acts)
                if longer is None:
                    break
                taken.add(following.name)
                step = longer
        steps.append(step)
    # A residual may come later than its convolution: a step stands where the last of its nodes stood.
    return sorted(steps, key=lambda step: place[step.output])


def join(steps: Sequence[Step], outputs: Sequence[str]) -> list[Step]:
    """The steps, with each 1x1 convolution and its residual as one where that is a 1x1 convolution too, which nobody else reads."""
    by_output = {step.output: step for step in steps}
    reads = Counter(name for step in steps for name in step.reads)
    found, gone = {}, set()
    for step in steps:
        other = by_output.get(step.residual)
        if other is None or other.residual or other.act != "none" or other.shortcut or reads[step.residual] > 1 or step.residual in outputs:
            continue
        for first, second in ((step, other), (other, step)):  # the addition stands with whichever came first
            if step.output not in gone and other.output not in gone and not supports(first.node, second.node):
                inputs = (*first.inputs, *second.inputs)
                found[step.output] = replace(step, node=first.node, inputs=inputs, residual="", shortcut=second.node)
                gone.add(other.output)
    return [found.get(step.output, step) for step in steps if step.output not in gone]


def pool_in(steps: Sequence[Step], shapes: Mapping[str, Sequence[int]], outputs: Sequence[str], device: torch.device) -> list[Step]:
    """The steps, with each convolution and the max pool behind it as one where nobody else reads what comes before the pool, and where
    kernels/gpu/stem.py can run both and has enough pixels to pay, or a product's tiles are whole windows."""
    pools = {step.inputs[0]: step for step in steps if step.node.op == "max_pool"}
    reads = Counter(name for step in steps for name in step.reads)
    found, gone = {}, set()
    for step in steps:
        behind = pools.get(step.output)
        if behind is None or reads[step.output] > 1 or step.output in outputs:
            continue
        if step.node.op != "conv" or step.residual or step.shortcut is not None:
            continue
        if _halved_at_once(step, behind.node, shapes) or _stem_at_once(step, behind.node, shapes, device):
            found[step.output] = replace(step, output=behind.output, pool=behind.node)
            gone.add(behind.output)
    return [found.get(step.output, step) for step in steps if step.output not in gone]


def _halved_at_once(step: Step, pool: Node, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether 2x2 windows are whole in tiles of 2^n pixels: images as wide as a power of two, at most half of the largest such tile."""
    height, width = shapes[step.node.name][2:]
    return is_halving(pool) and step.node.attrs["groups"] == 1 and height % 2 == 0 and width in (2, 4, 8, 16, 32, 64)


def _stem_at_once(step: Step, pool: Node, shapes: Mapping[str, Sequence[int]], device: torch.device) -> bool:
    """Whether stem.py runs the step and the pool behind it, and has enough blocks."""
    if not cuda_library.available()[0] or step.act not in cuda_library.ACTIVATIONS:
        return False
    images, channels, height, width = shapes[step.inputs[0]]
    convolved = images * prod(shapes[step.node.name][2:])
    if convolved < stem.LEAST or images * height * width > stem.MOST or stem.supports(step.node, pool, width):
        return False
    return width <= stem.widest(channels, stem.ROWS[-1], device)


def _follower(step: Step, readers: Mapping[str, Sequence[str]], nodes: Mapping[str, Node], outputs: Sequence[str]) -> Node | None:
    """The one node that reads what the step gives."""
    names = readers[step.output]
    return nodes[names[0]] if len(names) == 1 and step.output not in outputs else None


def _with(step: Step, node: Node, shapes: Mapping[str, Sequence[int]], acts: Sequence[str]) -> Step | None:
    """The step with the node taken in; None where it does not fit."""
    if node.op == "add" and not step.residual and step.act == "none":
        others = [name for name in node.inputs if name != step.output]
        if len(others) == 1 and tuple(shapes[others[0]]) == tuple(shapes[step.output]):
            return replace(step, output=node.name, residual=others[0])
    if node.op == "activation" and step.act == "none" and node.attrs["kind"] in acts:
        alpha, beta = float(node.attrs["alpha"]), float(node.attrs["beta"])  # type: ignore[arg-type]
        return replace(step, output=node.name, act=str(node.attrs["kind"]), alpha=alpha, beta=beta)
    return None
