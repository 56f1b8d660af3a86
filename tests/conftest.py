"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

# The suite's tensors are small, and two threads that wait for each other beside other work take several times as long as one. Libraries
# read it when they are imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# So is this: torch.export spends its time in sympy, whose caches of 1000 entries are too small for a network.
os.environ.setdefault("SYMPY_CACHE_SIZE", "30000")

import pytest
import torch

pytest_plugins = ["cuda_kernels", "own_net"]

REPOSITORY = Path(__file__).resolve().parent.parent

if not torch.cuda.is_available():
    # Triton reads it when a kernel is defined: its kernels then run on the CPU, for their numbers. Compiling is tested in processes apart.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_finish() -> None:
    """What the imports made stays: a collection need not walk it. torch.export makes objects by the million, hardly any of them garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real networks and images: COSPARSE_DATA, or ../shared/data beside the repository. Skips where there is none."""
    folder = Path(os.environ.get("COSPARSE_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data: {folder} does not exist; COSPARSE_DATA names the folder with the CIFAR-10 files")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Whatever the environment says."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def numbers_are_known() -> None:
    """torch.export asks of the same sizes over and over whether they are numbers: sympy then looks through all that they are made of."""
    if "sympy" in sys.modules:
        from sympy.core.expr import Expr

        Expr.is_number = property(lru_cache(1 << 15)(Expr.is_number.fget))


@pytest.fixture(autouse=True)
def own_signal_stack() -> Iterator[None]:
    """OpenVINO's models leave a dangling one behind."""
    from cosparse.bench import signal_stack

    with signal_stack.kept():
        yield


@pytest.fixture(scope="session", autouse=True)
def own_tuning_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the suite measures stays with the suite."""
    os.environ["COSPARSE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as a file. A module's own: tests may put other files beside it."""
    from small_net import small_net

    from cosparse.engine import artifact

    path = tmp_path_factory.mktemp("small") / "small.cosparse"
    artifact.write(path, small_net())
    return path
