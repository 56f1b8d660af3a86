"""Masks over the transform coefficients of a layer, and the projection of weights onto what a mask keeps.

A block is r x 1: r consecutive filters share the decision on one column k = (c R + u) S + v. A mask is attached to its module as the
plain attribute `cosparse`; it is no parameter and no buffer, so it leaves the state dict alone and survives copy.deepcopy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from cosparse.compress import transforms
from cosparse.compress.transforms import Transform
from cosparse.errors import Error

BLOCKS = (1, 2, 4, 8, 16, 32, 64)

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
"""The modules that are counted; of these, Conv2d and Linear can carry a mask."""

ATTRIBUTE = "cosparse"


@dataclass(frozen=True, eq=False)
class LayerMask:
    """What one layer keeps: `keep` is bool [ceil(O / block), K], on the CPU; the last block row may reach beyond the O filters.

    `transform` may be given by the name of one that has no matrices of its own. `why` may say why it is this one and not the one that was
    asked for. `group_rows`: filters of a filter group, a multiple of `block`, where blocks were chosen with regard to each other; else 0.
    """

    transform: Transform
    block: int
    keep: torch.Tensor
    filters: int
    taps: int
    why: str = ""
    group_rows: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "transform", transforms.resolved(self.transform))
        expected = -(-self.filters // self.block)
        if self.keep.dtype != torch.bool or self.keep.ndim != 2 or self.keep.shape[0] != expected or self.keep.shape[1] % self.taps:
            wanted = f"bool [{expected}, a multiple of {self.taps}] for {self.filters} filters in blocks of {self.block}"
            raise Error("mask", wanted, f"{self.keep.dtype} {list(self.keep.shape)}")
        if self.group_rows < 0 or self.group_rows % self.block:
            raise Error("mask", f"group_rows 0 or a multiple of its {self.block} filters a block", repr(self.group_rows))

    @cached_property
    def full(self) -> torch.Tensor:
        """The mask of every single coefficient, bool [O, K]."""
        return self.keep.repeat_interleave(self.block, dim=0)[: self.filters]

    @cached_property
    def _copies(self) -> dict[torch.device, torch.Tensor]:
        return {}

    def full_on(self, device: torch.device) -> torch.Tensor:
        """`full` on a device; the copy is kept, as training asks for it at every step."""
        if device.type == "cpu":
            return self.full
        if device not in self._copies:
            self._copies[device] = self.full.to(device)
        return self._copies[device]

    def kept(self) -> int:
        """Number of coefficients kept; the padding of a partial last block counts nothing."""
        return int(self.full.sum())

    def open_columns(self) -> torch.Tensor:
        """Which columns of which filter group any block keeps, bool [ceil(O / group_rows), K]; of which block row, without groups."""
        per = max(1, self.group_rows // self.block)
        padded = nn.functional.pad(self.keep, (0, 0, 0, -self.keep.shape[0] % per))
        return padded.reshape(-1, per, self.keep.shape[1]).any(1)

    def open_blocks(self) -> torch.Tensor:
        """The blocks in open group columns, kept or not, bool [ceil(O / block), K]."""
        per = max(1, self.group_rows // self.block)
        return self.open_columns().repeat_interleave(per, dim=0)[: self.keep.shape[0]]

    def channels_used(self) -> int:
        """Number of input channels whose basis step is paid: those of which a coefficient is kept, in whole tiles where they share one."""
        return units_used(self.keep.numpy(), self.taps * self.transform.unit) * self.transform.unit

    @property
    def density(self) -> float:
        return self.kept() / max(1, self.full.numel())

    @property
    def opened(self) -> float:
        """Coefficients in open group columns over all: the density of what a GPU executes, the padding of a partial group left out."""
        return replace(self, keep=self.open_blocks()).density


def units_used(keep: np.ndarray, columns: int) -> int:
    """Number of runs of so many columns, the last perhaps shorter, of which a block is kept."""
    return len(np.unique(np.flatnonzero(keep.any(0)) // columns))


def geometry(module: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    """(kernel, stride) of a Conv2d; a Linear layer counts as 1x1."""
    if isinstance(module, nn.Linear):
        return (1, 1), (1, 1)
    return (module.kernel_size[0], module.kernel_size[1]), (module.stride[0], module.stride[1])


def attach(module: Layer, mask: LayerMask) -> None:
    """Gives the module its mask; raises Error where the two do not fit."""
    filters, columns = module.weight.shape[0], module.weight[0].numel()
    taps = columns // module.weight.shape[1]
    if (mask.filters, mask.keep.shape[1], mask.taps) != (filters, columns, taps):
        got = f"{mask.filters} filters, {mask.keep.shape[1]} columns, {mask.taps} taps"
        raise Error(f"mask of {type(module).__name__}", f"{filters} filters, {columns} columns, {taps} taps", got)
    setattr(module, ATTRIBUTE, mask)


def leave_dense(module: nn.Module, why: str) -> None:
    """Records why a layer has no mask, so that every table can say so."""
    setattr(module, ATTRIBUTE, why)


def mask_of(module: nn.Module) -> LayerMask | None:
    mask = getattr(module, ATTRIBUTE, None)
    return mask if isinstance(mask, LayerMask) else None


def why_dense(module: nn.Module) -> str:
    """The recorded reason for leaving the layer dense, or the empty string."""
    why = getattr(module, ATTRIBUTE, "")
    return why if isinstance(why, str) else ""


def masked(model: nn.Module) -> Iterator[tuple[str, Layer, LayerMask]]:
    """(module path, module, mask) of every masked layer."""
    for name, module in model.named_modules():
        mask = mask_of(module)
        if mask is not None and isinstance(module, Layer):
            yield name, module, mask


def keep_only(tensor: torch.Tensor, mask: LayerMask) -> torch.Tensor:
    """Projects a tensor of the weight's shape onto the kept coefficients: T^-1 (mask * T w)."""
    coefficients = transforms.forward(tensor, mask.transform)
    kept = coefficients * mask.full_on(tensor.device).reshape(tensor.shape)
    return transforms.inverse(kept, mask.transform)


@torch.no_grad()
def project(module: Layer) -> None:
    """Projects the module's weight onto what its mask keeps; a module without a mask is left as it is."""
    mask = mask_of(module)
    if mask is not None:
        module.weight.copy_(keep_only(module.weight, mask))


@torch.no_grad()
def residue(module: Layer) -> float:
    """Largest masked-out coefficient of the weight relative to its largest coefficient, in float64; 0 for a module without a mask."""
    mask = mask_of(module)
    if mask is None:
        return 0.0
    coefficients = transforms.forward(module.weight.double(), mask.transform).abs().reshape(mask.full.shape)
    largest = float(coefficients.max()) if coefficients.numel() else 0.0
    outside = coefficients.masked_fill(mask.full_on(coefficients.device), 0.0)
    return float(outside.max()) / largest if largest else 0.0


def block_energy(weight: torch.Tensor, transform: Transform | str, block: int) -> torch.Tensor:
    """Sum of squared coefficients of every block, float64 [ceil(O / block), K], on the CPU; computed where the weight is."""
    return block_sums(transforms.forward(weight.detach().double(), transform).square(), block).cpu()


def block_sums(values: torch.Tensor, block: int) -> torch.Tensor:
    """Sum over every block of values of the weight's shape, [ceil(O / block), K]."""
    flat = values.flatten(1)
    padded = nn.functional.pad(flat, (0, 0, 0, -flat.shape[0] % block))
    return padded.reshape(-1, block, flat.shape[1]).sum(1)


def to_tensors(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, object]]]:
    """The masks as (tensors, plain data), for a safetensors file and its metadata: NAME, and NAME/basis, NAME/tiles where there are any."""
    tensors, notes = {}, {}
    for name, module in model.named_modules():
        mask = mask_of(module)
        if mask is not None:
            tensors[name] = mask.keep
            matrices = {"basis": mask.transform.basis, "tiles": mask.transform.tiles}
            tensors |= {f"{name}/{role}": torch.from_numpy(matrix.copy()) for role, matrix in matrices.items() if matrix is not None}
            notes[name] = {
                "transform": mask.transform.name,
                "block": mask.block,
                "filters": mask.filters,
                "taps": mask.taps,
                "why": mask.why,
            } | ({"group_rows": mask.group_rows} if mask.group_rows else {})
        elif why_dense(module):
            notes[name] = {"dense": why_dense(module)}
    return tensors, notes


def from_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Mapping[str, object]]) -> None:
    """Attaches what `to_tensors` gave; raises Error where the model has no such layer."""
    modules = dict(model.named_modules())
    for name, note in notes.items():
        module = modules.get(name)
        if not isinstance(module, Layer):
            raise Error(f"mask {name}", "a layer of this model", "none of that name", "resume with the model that was saved")
        if "dense" in note:
            leave_dense(module, str(note["dense"]))
        else:
            basis, tiles = (tensors[key].numpy() if (key := f"{name}/{role}") in tensors else None for role in ("basis", "tiles"))
            transform = transforms.restored(str(note["transform"]), basis, tiles)
            attach(module, LayerMask(keep=tensors[name].bool(), **{**note, "transform": transform}))  # type: ignore[arg-type]
