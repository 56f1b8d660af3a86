"""One rank of a two-process run, started by torchrun from test_compress_distributed.py: trains, then writes what it ended with."""

from __future__ import annotations

import json
import os
import sys
from functools import lru_cache
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cosparse.compress import NNCS, Budget, masks
from cosparse.compress.data import DIGITS, Batches, digits
from cosparse.compress.distributed import rank, ranks
from cosparse.errors import Error

EXAMPLE = torch.zeros(1, 1, 8, 8)
BATCH = 64


def network() -> nn.Module:
    """No batch norm, so that two halves of a batch are the whole batch."""
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1)]
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


@lru_cache(1)
def whole_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [batch for batch in Batches(digits()[0], DIGITS, BATCH, shuffle=True) if len(batch[1]) == BATCH][:20]


class Shares:
    """This rank's part of every batch: equal parts, so that the mean of the ranks' gradients is the batch's."""

    def __init__(self) -> None:
        self.batches = whole_batches()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return ((x[rank() :: ranks()], y[rank() :: ranks()]) for x, y in self.batches)


def own_loop(model: nn.Module, make_optimizer, unequal: bool = False) -> NNCS:
    """Three added lines in a plain data-parallel loop."""
    wrapped = DistributedDataParallel(model) if ranks() > 1 and not unequal else model
    nncs = NNCS(wrapped, Budget(flops=0.5), EXAMPLE)
    nncs.ramp = 20
    optimizer = make_optimizer(model)
    for epoch in range(2):
        if epoch == 1:
            nncs.mask(optimizer)
        for x, y in Shares():
            optimizer.zero_grad()
            nn.functional.cross_entropy(wrapped(x), y).backward()
            nncs.step(optimizer)
    nncs.finish()
    return nncs


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-3)


def trained(mode: str, folder: Path) -> NNCS:
    if mode == "fit":
        nncs = NNCS(network(), Budget(flops=0.5), EXAMPLE)
        nncs.fit(Shares(), None, (1, 1), lr=0.05, warmup=5, save_to=folder / "run.safetensors")
        return nncs
    return own_loop(network(), {"sgd": sgd, "adamw": adamw}[mode])


def facts(nncs: NNCS) -> dict[str, torch.Tensor]:
    keep, _ = masks.to_tensors(nncs.model)
    return {**nncs.model.state_dict(), **{f"mask of {name}": kept for name, kept in keep.items()}}


def write(folder: Path, mode: str, result: dict[str, object]) -> None:
    (folder / f"{mode}{os.environ['RANK']}.json").write_text(json.dumps(result))


def apart(folder: Path) -> None:
    """The ranks' own copies of this process go apart, and find it. They meet at a file, as the address is the others'."""
    numbers = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", **numbers)
    try:
        own_loop(network(), sgd, unequal=True)
        write(folder, "unequal", {"error": ""})
    except Error as error:
        write(folder, "unequal", {"error": str(error)})
    distributed.barrier()


def main() -> None:
    modes, folder = sys.argv[1].split(","), Path(sys.argv[2])
    torch.set_num_threads(1)
    whole_batches()  # What is read and imported here is so once for both.
    sgd(network())
    if not (child := os.fork()):
        # Both have failed, and what is tested is written: where ranks part on an error, gloo's own threads now and then abort the process
        # as they are torn down. The other modes end as a user's program does.
        try:
            apart(folder)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    distributed.init_process_group("gloo")
    for mode in modes:
        write(folder, mode, {name: value.double().flatten().tolist() for name, value in facts(trained(mode, folder)).items()})
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
