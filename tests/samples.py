"""Small valid artifacts for the programs in tests/native: `python tests/samples.py DIR`."""

import sys
from pathlib import Path

import numpy as np
from engines import graph_of
from nodes import FakeNode, conv
from sample_graphs import every_op, every_transform, version_three
from small_net import small_net

from cosparse.engine import artifact
from cosparse.engine.graph import Graph


def ways_to_the_maps() -> Graph:
    """Taps read out of padded copies, a basis step, blocks of four, and more maps than a chunk has of any number but bytes."""
    rng = np.random.default_rng(0)
    layers = [
        conv(rng, 16, 3, (7, 7), stride=(2, 2), pad=(3, 3, 3, 3)),
        conv(rng, 19, 16, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=8, density=0.5),
        conv(rng, 520, 19, (1, 1), block=4, density=0.5),
        conv(rng, 16, 520, (3, 3), pad=(1, 1, 1, 1), block=8, density=0.2),
        conv(rng, 10, 16, (1, 1)),
    ]
    nodes = [FakeNode(f"l{i}", n.op, (f"l{i - 1}" if i else "x",), n.attrs, n.tensors) for i, n in enumerate(layers)]
    return graph_of(nodes, {"x": (3, 4, 32)})


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"small": small_net(channels=8, size=4), "ops": every_op(), "transforms": every_transform(), "three": version_three()}
    graphs["maps"] = ways_to_the_maps()
    for name, graph in graphs.items():
        artifact.write(folder / f"{name}.cosparse", graph)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
