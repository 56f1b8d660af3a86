"""Seeds for the fuzzing of the reader: `python tests/fuzz_seeds.py DIR` writes small artifacts, most of them of one node."""

import sys
from dataclasses import replace
from pathlib import Path

import malformed
import numpy as np
from engines import graph_of
from nodes import conv
from sample_graphs import every_op, every_transform, version_three

from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node

LARGEST = 16_000  # bytes: what is larger takes the time of many small ones


def single_nodes() -> list[Graph]:
    """Every node of the sample graphs on its own, with inputs of small sizes."""
    found = []
    for whole in (every_op(), every_transform(), version_three()):
        for node in whole.nodes:
            channels = node.attrs.get("channels") or next((len(node.tensors[r]) for r in ("scale", "slope") if r in node.tensors), 4)
            rank2 = node.op == "linear"
            shape = (None, channels) if rank2 else (None, channels, 7, 5)
            names = [f"x{i}" for i in range(len(node.inputs))]
            inputs = tuple(Input(name, shape) for name in names)
            found.append(Graph("one", inputs, (node.name,), (replace(node, inputs=tuple(names)),)))
    return found


def blocks() -> list[Graph]:
    rng = np.random.default_rng(0)
    made = [conv(rng, 9, 4, (3, 3), block=block, transform="dct", density=0.2, extras=("bias", "scale")) for block in (1, 2, 8)]
    made += [conv(rng, 8, 8, (1, 1), groups=groups, block=1) for groups in (2, 8)]
    return [graph_of([Node("a", n.op, n.inputs, n.attrs, n.tensors)], {"x": (n.attrs["channels"], 5, 5)}) for n in made]


def write(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    contents = [artifact.to_bytes(graph) for graph in (*single_nodes(), *blocks(), every_op(), every_transform(), version_three())]
    contents += [case.to_bytes() for case in malformed.CASES[::3]]
    contents += [path.read_bytes() for path in (Path(__file__).parent / "data").glob("*.cosparse")]
    small = [content for content in contents if len(content) <= LARGEST]
    for number, content in enumerate(small):
        (folder / f"seed-{number:03}").write_bytes(content)
    return len(small)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])), "seeds")
