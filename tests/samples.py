"""Small valid artifacts for the programs in tests/native: `python tests/samples.py DIR`."""

import sys
from pathlib import Path

from sample_graphs import every_op, every_transform, version_three
from small_net import small_net

from cosparse.engine import artifact


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"small": small_net(channels=8, size=4), "ops": every_op(), "transforms": every_transform(), "three": version_three()}
    for name, graph in graphs.items():
        artifact.write(folder / f"{name}.cosparse", graph)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
