"""Masks that move while the coefficients train: the weakest blocks give way to those that the loss pulls at hardest (RigL, on blocks).

Every `every` steps of step 2, until the share `until` of it, each layer drops a share of its kept blocks, those of least energy, and takes
as many others, those of largest gradient energy sum (dL/ds)^2. The share falls as (share / 2) (1 + cos(pi t / t_end)).

All costs stay within the budget exactly. Blocks of a partial last block row are exchanged among themselves, so that the coefficients
stay as many. A block that opens an input channel adds a basis step: it is taken only while the channels in use are no more than before
the exchange. Where blocks were chosen in filter groups, only blocks in open group columns are taken; a layer that has too few of them is
left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from cosparse.compress import masks
from cosparse.errors import Error


@dataclass(frozen=True)
class Regrow:
    """`every`: steps between two exchanges. `until`: share of step 2 after which masks rest. `share`: of a layer's kept blocks, the part
    exchanged at first. `steps`: length of step 2 in optimizer steps; NNCS.fit knows it and sets it."""

    every: int = 100
    until: float = 0.75
    share: float = 0.2
    steps: int = 1000

    def __post_init__(self) -> None:
        if self.every < 1 or self.steps < 1 or not 0 < self.until <= 1 or not 0 < self.share < 1:
            got = f"every {self.every}, until {self.until}, share {self.share}, steps {self.steps}"
            raise Error("Regrow", "every >= 1, 0 < until <= 1, 0 < share < 1, steps >= 1", got)

    def share_at(self, step: int) -> float:
        """The share to exchange after `step` steps of step 2, 0 where none is due."""
        end = self.until * self.steps
        if step < 1 or step % self.every or step >= end:
            return 0.0
        return self.share / 2 * (1 + math.cos(math.pi * step / end))

    def settings(self) -> dict[str, float]:
        """What was chosen, as plain data; the length of step 2 follows from the epochs."""
        return {"every": self.every, "until": self.until, "share": self.share}


@torch.no_grad()
def regrow_masks(model: torch.nn.Module, share: float) -> int:
    """Exchanges that share of every masked layer's blocks, by the gradients in the weights; the number of blocks whose state changed.

    The weights are left as they are: projecting them (`masks.project`) takes the dropped coefficients away, and the new ones start at 0.
    The choice depends on weights and gradients alone, so ranks that share both end with the same masks.
    """
    changed = 0
    for name, module, mask in list(masks.masked(model)):
        gradient = module.weight.grad
        if gradient is None:
            continue
        if not bool(gradient.isfinite().all()):
            raise Error(f"gradient of {name}", "finite values", "NaN or infinity", "lower the learning rate")
        energy = masks.block_energy(module.weight, mask.transform, mask.block)
        pull = masks.block_energy(gradient, mask.transform, mask.block)
        allowed = mask.open_blocks() if mask.group_rows else None
        keep = exchange(mask.keep, energy, pull, mask.taps * mask.transform.unit, share, _classes(mask), allowed)
        changed += int((keep != mask.keep).sum())
        masks.attach(module, replace(mask, keep=keep))
    return changed


def _classes(mask: masks.LayerMask) -> tuple[slice, ...]:
    """The block rows of equal size: the whole ones, and a partial last one."""
    whole, rest = divmod(mask.filters, mask.block)
    return (slice(0, whole), slice(whole, whole + 1)) if rest else (slice(0, whole),)


def exchange(
    keep: torch.Tensor,
    energy: torch.Tensor,
    pull: torch.Tensor,
    taps: int,
    share: float,
    classes: Sequence[slice],
    allowed: torch.Tensor | None = None,
) -> torch.Tensor:
    """The new mask: within each class of block rows as many blocks as before, and in all no more input channels.

    keep: bool [block rows, K]. energy, pull: [block rows, K], what kept blocks hold and what the loss asks of the others. Blocks just
    dropped are candidates like the rest, so that there are always enough: what may be opened is what dropping closed. Ties go to the
    earlier block. `allowed`, bool [block rows, K], leaves others out; where then there are too few, the old mask is returned.
    """
    after = keep.clone()
    quotas = []
    for rows in classes:
        kept = after[rows].flatten().nonzero().flatten()
        quota = int(share * len(kept))
        weakest = torch.argsort(energy[rows].flatten()[kept], stable=True)[:quota]
        after[rows] = after[rows].flatten().index_fill(0, kept[weakest], False).reshape(after[rows].shape)
        quotas.append(quota)
    spare = int(_open(keep, taps).sum() - _open(after, taps).sum())
    for rows, quota in zip(classes, quotas, strict=True):
        spare -= _take(after, rows, pull, taps, quota, spare, allowed)
    if allowed is not None and any(after[rows].sum() != keep[rows].sum() for rows in classes):
        return keep
    return after


def _open(keep: torch.Tensor, taps: int) -> torch.Tensor:
    """Which input channels (or tiles of them, where those share a basis step) a mask uses, bool [C / unit]."""
    used = keep.any(0)
    return torch.nn.functional.pad(used, (0, -len(used) % taps)).reshape(-1, taps).any(1)


def _take(
    keep: torch.Tensor, rows: slice, pull: torch.Tensor, taps: int, quota: int, spare: int, wanted: torch.Tensor | None = None
) -> int:
    """Adds to these rows of `keep` the `quota` blocks of largest pull that open at most `spare` channels; how many they opened."""
    part, columns = keep[rows], keep.shape[1]
    free = (~part if wanted is None else ~part & wanted[rows]).flatten().nonzero().flatten()
    ranked = free[torch.argsort(pull[rows].flatten()[free], descending=True, stable=True)]
    channel = (ranked % columns) // taps
    opened = _open(keep, taps)
    closed = torch.unique_consecutive(channel[~opened[channel]])
    newcomers = list(dict.fromkeys(closed.tolist()))[:spare]
    allowed = opened.clone()
    allowed[newcomers] = True
    taken = ranked[allowed[channel]][:quota]
    keep[rows] = part.flatten().index_fill(0, taken, True).reshape(part.shape)
    return int(_open(keep, taps).sum() - opened.sum())
