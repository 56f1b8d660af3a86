"""Load time, first run and peak memory of one candidate, taken in a process of its own: only there is "first" the first.

`python -m cosparse.bench.cold` reads one JSON request on standard input and writes one JSON answer on standard output.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosparse.bench.peers import Arrays, Shapes, find
from cosparse.errors import Error

ENGINE = "engine"
FIGURES = ("load_ms", "first_run_ms", "peak_rss_mb")
LIMIT_S = 300


def measure(candidate: str, path: Path, shapes: Shapes, inputs: Sequence[str], threads: int, isa: str | None) -> dict[str, float]:
    """load_ms (file to ready network, the runtime itself already imported), first_run_ms, peak_rss_mb (whole process, Python included).

    `path` is what the candidate loads: the artifact for the engine, `Peer.save`'s file for a peer. Raises Error where the process fails.
    """
    request: dict[str, Any] = {
        "candidate": candidate,
        "path": str(path),
        "shapes": {k: list(v) for k, v in shapes.items()},
        "inputs": list(inputs),
    }
    request |= {"threads": threads, "isa": isa}
    command = [sys.executable, "-P", "-m", "cosparse.bench.cold"]  # -P: a folder that happens to be called cosparse is not ours
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Error(f"cold start of {candidate}", "exit status 0", f"{done.returncode}: {last}")
    return json.loads(done.stdout)


def _loader(request: Mapping[str, Any]) -> Callable[[], Callable[[Arrays], object]]:
    """What loads the candidate; the import of its runtime happens here, outside the time taken."""
    if request["candidate"] == ENGINE:
        import cosparse

        return lambda: _call(cosparse.load(request["path"], threads=request["threads"], isa=request["isa"]))
    module = find(request["candidate"]).runtime()
    return lambda: module.load(Path(request["path"]), request["shapes"], request["threads"])


def _call(engine: Callable[..., object]) -> Callable[[Arrays], object]:
    return lambda arrays: engine(*arrays)


def peak_rss_mb() -> float:
    """Largest resident set of this process so far, MB (10^6 bytes)."""
    try:
        # Unlike getrusage's figure, this one starts anew when a process starts: it does not begin at the parent's.
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    request = json.load(sys.stdin)
    generator = np.random.default_rng(0)
    arrays = tuple(generator.standard_normal(request["shapes"][name], np.float32) for name in request["inputs"])
    load = _loader(request)
    start = time.perf_counter()
    run = load()
    loaded = time.perf_counter()
    run(arrays)
    done = time.perf_counter()
    figures = ((loaded - start) * 1e3, (done - loaded) * 1e3, peak_rss_mb())
    print(json.dumps({key: round(value, 3) for key, value in zip(FIGURES, figures, strict=True)}))


if __name__ == "__main__":
    main()
