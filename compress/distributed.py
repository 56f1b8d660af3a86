"""Training on several ranks (torchrun, DistributedDataParallel): what must be equal everywhere is checked, what is local is averaged.

DDP hands every rank the same gradients, so equal weights stay equal, and masks chosen from equal weights are equal. Nothing here
communicates where no process group is initialised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cosparse.errors import Error


def ranks() -> int:
    """Number of processes that train together; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's number among `ranks()`; 0 without a process group."""
    return distributed.get_rank() if ranks() > 1 else 0


def parallel(model: nn.Module) -> nn.Module:
    """The model wrapped for data parallelism where several ranks train; itself elsewhere."""
    if ranks() == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def mean(value: float, device: torch.device) -> float:
    """The mean of a local figure over all ranks."""
    if ranks() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    distributed.all_reduce(total)
    return float(total) / ranks()


def require_equal(about: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises the same Error on all ranks where any tensor differs between them."""
    if ranks() == 1:
        return
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    all_digests: list[str | None] = [None] * ranks()
    distributed.all_gather_object(all_digests, digest.hexdigest())
    different = [str(i) for i, other in enumerate(all_digests) if other != all_digests[0]]
    if different:
        next_step = "train through DistributedDataParallel, from equal weights"
        raise Error(about, f"the same on all {ranks()} ranks", f"rank 0 differs from {', '.join(different)}", next_step)
