"""A process that forks while it holds engines: the child has one thread and a copy of everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import run
from small_net import small_net

from cosparse.engine import artifact

PROGRAM = """
import os, signal, sys, threading
import numpy, cosparse
engine = cosparse.load(sys.argv[1], threads=int(sys.argv[2]), tune=False)
x = numpy.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(numpy.float32)
want = engine(x)
stop = threading.Event()
def call():
    while not stop.is_set():
        engine(x)
others = [threading.Thread(target=call) for _ in range(int(sys.argv[3]))]
for other in others: other.start()
for i in range(int(sys.argv[4])):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs dies of it, and the test sees that
        global engine
        same = all(numpy.array_equal(engine(x), want) for _ in range(20))
        started = len(os.listdir("/proc/self/task")) - 1 if os.path.isdir("/proc/self/task") else engine.threads - 1
        engine.warmup((2,))
        fresh = cosparse.load(sys.argv[1], threads=engine.threads, tune=False)
        same = same and numpy.array_equal(fresh(x), want) and started == engine.threads - 1
        if i % 2:
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if numpy.array_equal(engine(x), want) else 1)
            same = same and os.waitpid(grandchild, 0)[1] == 0
        del engine, fresh
        os._exit(0 if same else 1)
    status = os.waitpid(child, 0)[1]
    if status:
        stop.set()
        sys.exit(f"child {i}: status {status}")
stop.set()
for other in others: other.join()
assert numpy.array_equal(engine(x), want)
print("right")
""".replace("        global engine\n", "")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    artifact.write(tmp_path / "net.cosparse", small_net())
    return tmp_path / "net.cosparse"


@pytest.mark.parametrize(("threads", "callers"), [(1, 0), (3, 0), (3, 2)])
def test_an_engine_works_on_in_a_child(network: Path, threads: int, callers: int) -> None:
    """Also where other threads were calling it, planning or growing memory when the process forked; the child starts its own workers."""
    done = run(PROGRAM, network, str(threads), str(callers), "12")
    assert (done.returncode, done.stdout.strip()) == (0, "right"), done.stdout + done.stderr


def test_memory_that_a_call_held_at_the_fork_is_made_anew(network: Path) -> None:
    """One context, at work and waited for by other threads in the parent: in the child nobody gives it back."""
    program = """
import os, signal, sys, threading, time
import numpy, cosparse
engine = cosparse.load(sys.argv[1], threads=1, contexts=1, tune=False)
x = numpy.ones((64, 3, 64, 64), numpy.float32)
want, stop = engine(x[:1]), threading.Event()
def call():
    while not stop.is_set():
        engine(x)
others = [threading.Thread(target=call) for _ in range(3)]
for other in others: other.start()
for i in range(8):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        same = numpy.array_equal(engine(x[:1]), want)
        team = [threading.Thread(target=engine, args=(x[:2],)) for _ in range(3)]
        for member in team: member.start()
        for member in team: member.join()
        del engine
        os._exit(0 if same else 1)
    if os.waitpid(child, 0)[1]:
        stop.set()
        sys.exit(f"child {i}")
stop.set()
for other in others: other.join()
"""
    done = run(program, network)
    assert done.returncode == 0, done.stderr


def test_a_child_that_only_ends_does_not_hang(network: Path) -> None:
    """Leaving Python in the child destroys the engine whose threads are not there."""
    program = """
import os, signal, sys, numpy, cosparse
engine = cosparse.load(sys.argv[1], threads=4, tune=False)
engine(numpy.zeros((2, 3, 8, 8), numpy.float32))
child = os.fork()
if child == 0:
    signal.alarm(60)
    del engine
    sys.exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
    done = run(program, network)
    assert done.returncode == 0, done.stderr
