"""All malformed artifacts. `python tests/malformed.py DIR` writes them, and two valid files, into DIR for the sanitizer run."""

import sys
from pathlib import Path

import malformed_container
import malformed_graph
import malformed_ops
import malformed_transforms
from sample_graphs import every_op, every_transform

from cosparse.engine import artifact

CASES = [*malformed_container.CASES, *malformed_graph.CASES, *malformed_ops.CASES, *malformed_transforms.CASES]


def dump(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    artifact.write(folder / "valid.cosparse", every_op())
    artifact.write(folder / "valid-transforms.cosparse", every_transform())
    for case in CASES:
        name = "".join(c if c.isalnum() else "-" for c in case.id)
        (folder / f"bad-{name}.cosparse").write_bytes(case.to_bytes())


if __name__ == "__main__":
    dump(Path(sys.argv[1]))
