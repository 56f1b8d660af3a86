"""Where candidates are scored: in this process, in several, or on Ray.

A runner takes a fitness and a batch of candidates, widths of all groups each, and gives the answers in the order of the candidates.
"""

from __future__ import annotations

import copyreg
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

from cosparse.errors import Error, UnsupportedError

Widths = tuple[int, ...]
Fitness = Callable[[Widths], float]


class Runner(Protocol):
    """Scores several candidates: the order of the answers is that of the candidates."""

    def __call__(self, fitness: Fitness, candidates: Sequence[Widths]) -> list[float]: ...


def serially(fitness: Fitness, candidates: Sequence[Widths]) -> list[float]:
    return [float(fitness(widths)) for widths in candidates]


class Processes:
    """Scores in `workers` processes of one thread each; `with Processes(2) as runner:` ends them behind the block.

    They start with the first batch, take the fitness over once, as it is then, and live until another fitness comes, `close`, or nobody
    holds this object any more. They import what the fitness is made of, so it must be a function of a module, or an object of such a class;
    a script runs again in each of them, and must keep what it does behind `if __name__ == "__main__":`, else each would start its own.

    What the fitness raises comes back as it was. Raises Error where the fitness cannot be handed over or a worker was killed.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise Error("workers", "at least 1", str(workers))
        self.workers = workers
        self._fitness: Fitness | None = None
        self._pool: ProcessPoolExecutor | None = None  # it ends its processes itself once it is collected

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; another batch starts new ones."""
        pool, self._pool, self._fitness = self._pool, None, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def __call__(self, fitness: Fitness, candidates: Sequence[Widths]) -> list[float]:
        pool = self._started(fitness)
        waiting: list[Future[float]] = []
        try:
            with _one_thread():  # a process starts when there is work for it
                waiting += [pool.submit(_score, widths) for widths in candidates]
            return [future.result() for future in waiting]
        except BrokenProcessPool as error:
            self.close()
            advice = 'fewer of them if memory ran out; the work of a script behind if __name__ == "__main__":; serially to see what happens'
            raise Error("Processes", f"{self.workers} workers that live", "one that was killed or ended", advice) from error
        finally:
            for future in waiting:
                future.cancel()

    def _started(self, fitness: Fitness) -> ProcessPoolExecutor:
        if self._pool is None or self._fitness is not fitness:
            self.close()
            # Threads, torch's among them, do not survive a fork.
            self._pool = ProcessPoolExecutor(self.workers, get_context("spawn"), _take, (_by_value(fitness),))
            self._fitness = fitness
        return self._pool


def _by_value(fitness: Fitness) -> bytes:
    """As multiprocessing hands objects over, but tensors with their values: torch's way needs /dev/shm, which containers keep small."""
    buffer = io.BytesIO()
    pickler = ForkingPickler(buffer)
    pickler.dispatch_table = copyreg.dispatch_table
    try:
        pickler.dump(fitness)
    except Exception as error:
        got = f"{fitness!r}"[:200] + f" ({error})"
        raise Error("fitness", "a function or object whose code a module defines", got, "define it so, or score serially") from error
    return buffer.getvalue()


@contextmanager
def _one_thread() -> Iterator[None]:
    """OMP_NUM_THREADS = 1 for the processes that start inside: workers with all threads each would stand in each other's way."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


_here: dict[str, Any] = {}
"""In a worker: the fitness, as it came and as it was made."""


def _take(data: bytes) -> None:
    _here["data"] = data


def _score(widths: Widths) -> float:
    if "fitness" not in _here:
        try:
            _here["fitness"] = ForkingPickler.loads(_here["data"])
        except Exception as error:
            got, advice = f"{type(error).__name__}: {error}", "define it in a module that the workers find too"
            raise Error("fitness", "what another process can import", got, advice) from error
        del _here["data"]
    try:
        return float(_here["fitness"](widths))
    except Exception as error:
        if _travels(error):
            raise
        raise Error("fitness", "a number", f"{type(error).__name__}: {error}", "score serially to see where") from error


def _travels(error: Exception) -> bool:
    """Whether it can be handed over: one that cannot would end the whole pool."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return False
    return True


@dataclass(frozen=True)
class OnRay:
    """Scores on a Ray cluster, one task a candidate; `resources` as in ray.remote (num_cpus, num_gpus)."""

    resources: dict[str, float] = field(default_factory=lambda: {"num_cpus": 1})

    def __call__(self, fitness: Fitness, candidates: Sequence[Widths]) -> list[float]:
        try:
            import ray
        except ImportError as error:
            raise UnsupportedError("OnRay", "the package ray", "none installed", "pip install ray, or score in Processes") from error
        if not ray.is_initialized():
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
        task, handed = ray.remote(**self.resources)(_asked), ray.put(fitness)
        return [float(value) for value in ray.get([task.remote(handed, widths) for widths in candidates])]


def _asked(fitness: Fitness, widths: Widths) -> float:
    """A function, as Ray wants one; the fitness may be an object."""
    return float(fitness(widths))
