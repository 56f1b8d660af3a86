"""Python goes on while the runtime works: loading, measuring, calibrating."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from processes import run
from small_net import small_net

import cosparse
from cosparse.engine import artifact


def longest_pause(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that the work took, and the longest that a thread which wants to count each half millisecond had to wait meanwhile."""
    ticks: list[float] = []
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    counter = threading.Thread(target=count)
    counter.start()
    start = time.perf_counter()
    work()
    end = time.perf_counter()
    done.set()
    counter.join()
    inside = [start, *(t for t in ticks if start < t < end), end]
    return end - start, float(np.diff(inside).max())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of some megabytes: it takes a while to read and to pack."""
    path = tmp_path_factory.mktemp("gil") / "net.cosparse"
    artifact.write(path, small_net(channels=512, size=16))
    return path


def test_the_lock_is_free_while_a_network_is_loaded_measured_and_calibrated(network: Path) -> None:
    """Each takes so long that its largest pause would be nearly all of it if it held the lock; the best of three tries decides, since a
    busy machine makes pauses too."""
    image = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    engine = cosparse.load(network, threads=1)
    work = {
        "load": lambda: cosparse.load(network, threads=1, tune=False),
        "load and measure": lambda: cosparse.load(network, threads=1),
        "calibrate": lambda: cosparse.load(network, threads=1, tune=False, dtype="int8", calibration=image),
        "warm up": lambda: engine.warmup((7,)),
    }
    for name, action in work.items():
        shares = []
        for _ in range(3):
            took, pause = longest_pause(action)
            shares.append(pause / took)
            if shares[-1] < 0.5:
                break
        assert min(shares) < 0.5, (name, shares)


def test_an_idle_engine_costs_less_than_twenty_milliseconds_a_second(tmp_path: Path) -> None:
    artifact.write(tmp_path / "net.cosparse", small_net())
    engine = cosparse.load(tmp_path / "net.cosparse", threads=8, tune=False)
    engine(np.zeros((4, 3, 8, 8), np.float32))
    time.sleep(0.05)
    spent = []
    for _ in range(3):  # other threads of the process may have something to do
        before = time.process_time()
        time.sleep(1)
        spent.append(time.process_time() - before)
        if spent[-1] < 0.02:
            break
    assert min(spent) < 0.02, spent


ENDS = """
import sys, threading, time, numpy, cosparse
engine = cosparse.load(sys.argv[1], threads=2, tune=False)
x = numpy.zeros((8, 3, 16, 16), numpy.float32)
def work():
    while True:
        engine(x)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""


def test_python_may_end_while_threads_are_in_calls(network: Path) -> None:
    """The interpreter ends a thread that comes back to it then; its unwinding once met a destructor, and the process aborted."""
    for _ in range(3):
        done = run(ENDS, network)
        assert done.returncode == 0, done.stderr


def test_a_tuning_cache_that_is_a_pipe_is_ignored(network: Path, tmp_path: Path) -> None:
    """Opening it would wait for somebody who writes."""
    program = "import sys, warnings, cosparse\nprint(cosparse.load(sys.argv[1], threads=1)._native.cache)"
    cache = Path(run(program, network, COSPARSE_CACHE=str(tmp_path)).stdout.strip())
    cache.unlink()
    os.mkfifo(cache)
    done = run(program, network, seconds=30, COSPARSE_CACHE=str(tmp_path))
    assert "is ignored (file: expected a regular file, got another kind) and will be written anew" in done.stderr
    assert cache.is_file()
