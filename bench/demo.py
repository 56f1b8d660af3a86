"""The main job on data that needs no download: train a digit classifier, compress it, export it, run it, compare.

Everything that the result says was measured in this run: accuracies by the engine on the exported files, times by `cosparse bench`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cosparse
from cosparse.bench import bands
from cosparse.bench.demo_net import DigitsNet
from cosparse.bench.evaluate import accuracy, predict
from cosparse.bench.peers import installed
from cosparse.compress import NNCS, Budget, export
from cosparse.compress.data import DIGITS, Batches, Images, digits
from cosparse.engine import artifact
from cosparse.engine.engine import default_threads
from cosparse.errors import Error

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """What the demo does: epochs of dense training, before and after the masks; shares to remove; time to measure."""

    epochs: tuple[int, int, int] = (8, 1, 8)
    flops: float = 0.6
    params: float = 0.7
    widths: tuple[int, int, int] = (32, 64, 128)
    seed: int = 0
    threads: int = field(default_factory=default_threads)
    seconds: float = 1.0


def run(folder: Path, plan: Plan | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Runs the demo and leaves dense.cosparse, compressed.cosparse and masks.png in `folder`, which is made if needed.

    The result has `dense` and `compressed`, each with params, flops, bytes, top1 and latency_ms {engine, PEER: ms}; files, budget, verdict.
    """
    plan, tell = plan or Plan(), progress or (lambda phase, share: None)
    folder.mkdir(parents=True, exist_ok=True)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        return _run(folder, plan, tell)
    finally:
        torch.set_num_threads(threads_before)


def _run(folder: Path, plan: Plan, tell: Progress) -> dict[str, Any]:
    training, test = digits(seed=plan.seed)
    example = torch.zeros(1, 1, 8, 8)
    torch.manual_seed(plan.seed)
    model = DigitsNet(plan.widths)
    batches = Batches(training, DIGITS, 64, shuffle=True, augment=True, flip=False, pad=1, seed=plan.seed)

    train_dense(model, batches, plan.epochs[0], lambda share: tell("training the dense network", share))
    rows = {"dense": _export(model, example, folder / "dense.cosparse", {"method": "none"})}

    budget = Budget(flops=plan.flops, params=plan.params)
    nncs = NNCS(model, budget, example, transform="dct", block=8, seed=plan.seed)
    total = sum(plan.epochs[1:])
    history = nncs.fit(
        batches,
        epochs=plan.epochs[1:],
        seed=plan.seed,
        progress=lambda step: tell("compressing it", (step.epoch + step.step / step.steps) / total),
    )
    rows["compressed"] = _export(model, example, folder / "compressed.cosparse", {"method": "nncs", "settings": history.settings})
    bands.draw(artifact.read(folder / "compressed.cosparse"), folder / "masks.png")

    verdicts = []
    for place, (name, row) in enumerate(rows.items()):
        tell(f"timing the {name} network", place / len(rows))
        path = folder / f"{name}.cosparse"
        row |= _accuracy(path, test, plan.threads)
        timed = _bench(path, plan)
        row |= {"latency_ms": {who: figures["median_ms"] for who, figures in {"engine": timed["engine"], **timed["peers"]}.items()}}
        row |= {"check": timed["check"]}
        verdicts.append(timed["verdict"])
    seen = [verdict["neighbours"] for verdict in verdicts if verdict["neighbours"] is not None]
    return {
        **rows,
        "budget": {"flops": plan.flops, "params": plan.params},
        "threads": plan.threads,
        "test_images": len(test),
        "files": {name: str(folder / name) for name in ("dense.cosparse", "compressed.cosparse", "masks.png")},
        "verdict": {"stable": all(verdict["stable"] for verdict in verdicts), "neighbours": max(seen, default=None)},
    }


def train_dense(model: nn.Module, batches: Batches, epochs: int, tell: Callable[[float], None]) -> None:
    """Ordinary training: SGD with Nesterov momentum under a cosine."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps, done = epochs * len(batches), 0
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for x, labels in batches:
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1 + math.cos(math.pi * done / steps)) / 2
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()
            done += 1
            tell(done / steps)
    model.eval()


def _export(model: nn.Module, example: torch.Tensor, path: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    written = export(model, example, path, name=f"digits-{path.stem}", preprocessing=DIGITS, provenance=provenance)
    return {"params": written.counts.params, "flops": written.counts.flops, "bytes": written.bytes}


def _accuracy(path: Path, test: Images, threads: int) -> dict[str, Any]:
    engine = cosparse.load(path, threads=threads)
    return {"top1": accuracy(predict(engine, test, DIGITS), test.labels.numpy())["top1"]}


def _bench(path: Path, plan: Plan) -> dict[str, Any]:
    """`cosparse bench` in a process of its own, where neither training's memory nor its thread settings are left over."""
    # torch.compile would compile for as long as the whole demo takes.
    peers = ",".join(name for name in installed() if name != "torch.compile") or "none"
    settings = {"--threads": plan.threads, "--against": peers, "--seconds": plan.seconds, "--json": "-"}
    options = ["--no-layers", "--no-cold-start", *(str(word) for setting in settings.items() for word in setting)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-P", "-m", "cosparse", "bench", str(path), *options]  # -P: not from the current folder
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise Error(f"bench of {path}", "exit status 0", f"{done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)
