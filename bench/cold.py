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
FIGURES = ("load_ms", "first_run_ms", "peak_rss_mb", "grown_mb")
LIMIT_S = 300


def measure(
    candidate: str,
    path: Path,
    shapes: Shapes,
    inputs: Sequence[str],
    threads: int,
    isa: str | None,
    dtype: str = "float32",
    label: str = "",
    calibration: Path | None = None,
) -> dict[str, float]:
    """Figures of one cold start: FIGURES.

    load_ms: file to ready network, the runtime itself already imported. first_run_ms. peak_rss_mb: whole process, Python included.
    grown_mb: that peak less what the process held before it loaded. `path` is what the candidate loads: the artifact for the engine,
    `Runtime.save`'s file for a peer, which is run in the way called `label`. calibration: an .npz of inputs for an engine in int8.
    Raises Error where the process fails.
    """
    request: dict[str, Any] = {
        "candidate": candidate,
        "path": str(path),
        "shapes": {k: list(v) for k, v in shapes.items()},
        "inputs": list(inputs),
        "calibration": calibration and str(calibration),
    }
    request |= {"threads": threads, "isa": isa, "dtype": dtype, "label": label}
    command = [sys.executable, "-P", "-m", "cosparse.bench.cold"]  # -P: a folder that happens to be called cosparse is not ours
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Error(f"cold start of {candidate}", "exit status 0", f"{done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _loader(request: Mapping[str, Any]) -> Callable[[], Callable[[Arrays], object]]:
    """What loads the candidate; the import of its runtime happens here, outside the time taken."""
    dtype, threads = request["dtype"], request["threads"]
    if request["candidate"] == ENGINE:
        import cosparse

        options: dict[str, Any] = {"threads": threads, "isa": request["isa"], "dtype": dtype}
        if request["calibration"]:
            with np.load(request["calibration"], allow_pickle=False) as arrays:
                options["calibration"] = tuple(arrays[name] for name in request["inputs"])
        return lambda: _call(cosparse.load(request["path"], **options))
    module = find(request["candidate"]).runtime(dtype)
    return lambda: module.load(Path(request["path"]), request["shapes"], threads, dtype, request["label"]).run


def _call(engine: Callable[..., object]) -> Callable[[Arrays], object]:
    return lambda arrays: engine(*arrays)


def peak_rss_mb() -> float:
    """Largest resident set of this process so far (since `forget_peak`, where the system can forget), MB (10^6 bytes)."""
    # Unlike getrusage's figure, this one starts anew when a process starts: it does not begin at the parent's.
    held = _status("VmHWM")
    if held is not None:
        return held
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def forget_peak() -> float:
    """Lets the peak start from what the process holds now; that, MB. Where this cannot be done: the peak so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_rss_mb()
    return _status("VmRSS") or peak_rss_mb()


def _status(key: str) -> float | None:
    """An entry of /proc/self/status, MB."""
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    request = json.load(sys.stdin)
    generator = np.random.default_rng(0)
    arrays = tuple(generator.standard_normal(request["shapes"][name], np.float32) for name in request["inputs"])
    load = _loader(request)
    held = forget_peak()
    start = time.perf_counter()
    run = load()
    loaded = time.perf_counter()
    run(arrays)
    done = time.perf_counter()
    peak = peak_rss_mb()
    figures = ((loaded - start) * 1e3, (done - loaded) * 1e3, peak, peak - held)
    print(json.dumps({key: round(value, 3) for key, value in zip(FIGURES, figures, strict=True)}))


if __name__ == "__main__":
    main()
