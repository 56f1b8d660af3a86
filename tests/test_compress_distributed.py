"""Two processes on gloo, started by torchrun: weights and masks equal to the bit on both, and close to one process's on whole batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from cosparse.compress import checkpoint
from tests import ddp_worker

MODES = ("sgd", "adamw", "fit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def written(folder: Path) -> dict[str, list[dict]]:
    """What the two ranks wrote of each mode, and of ranks that go apart, from one launch: to start them takes longer than they run."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.ddp_worker"]
    line = [*command, ",".join(MODES), str(folder)]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {mode: [json.loads((folder / f"{mode}{rank}.json").read_text()) for rank in range(2)] for mode in (*MODES, "unequal")}


@pytest.mark.parametrize("mode", MODES)
def test_two_ranks_end_alike(mode: str, written: dict[str, list[dict]], folder: Path, tmp_path: Path) -> None:
    first, second = written[mode]
    assert first == second
    assert any(name.startswith("mask of") and 0 in kept for name, kept in first.items())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = {name: value.double().flatten().numpy() for name, value in ddp_worker.facts(ddp_worker.trained(mode, tmp_path)).items()}
    torch.set_num_threads(threads)
    assert alone.keys() == first.keys()
    for name, value in alone.items():
        if name.startswith("mask of"):
            # A rounding may turn a decision between two blocks of nearly equal energy; more would be an error.
            assert np.mean(value != first[name]) < 0.05, name
        elif mode != "adamw":  # Adam divides by a running norm: where a gradient is near 0 a rounding becomes a full step.
            assert np.median(np.abs(value - first[name])) < 1e-4 * max(1e-3, float(np.abs(value).max())), name
    if mode == "fit":
        _, notes = checkpoint.load(folder / "run.safetensors")
        assert notes["epoch"] == 2


def test_ranks_that_went_apart_are_found(written: dict[str, list[dict]]) -> None:
    for result in written["unequal"]:
        assert (
            "masks: expected the same on all 2 ranks, got rank 0 differs from 1; train through DistributedDataParallel" in result["error"]
        )
