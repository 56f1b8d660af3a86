"""Claim: 8 x 1 blocks inside bounded groups of 64 filters keep the energy that 8 x 1 blocks keep, while a GPU executes far fewer columns.

    python -m cosparse.bench.claims.hierarchical_masks --network resnet56 --weights FILE --flops 0.6

Masks by magnitude, without training: blocks of 8 alone, of 64 alone, and 8 in 64 with several slacks (`cosparse.compress.hierarchy`). One
row a form: the share of the masked layers' energy that is kept; the density of blocks; the density of open columns of groups of 64 filters,
and the same in multiply-adds of the whole network, basis step included, over the dense network's. Exit status: 0 every slack loses less
energy against blocks of 8 than blocks of 64 do, and opens no more than they; 1 one does not; 2 bad input.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from cosparse.bench import zoo
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.compress import Budget, count, impose, masks

BLOCK, ROWS = 8, 64
Example = torch.Tensor | tuple[torch.Tensor, ...]


def row(form: str, model: nn.Module, masked: nn.Module, example: Example) -> dict[str, Any]:
    """form, energy, density, opened, flops, flops_opened: shares, the first three of the masked layers, the last two of the network."""
    dense = dict(model.named_modules())
    layers = list(masks.masked(masked))
    whole = sum(float(dense[name].weight.detach().double().square().sum()) for name, _, _ in layers)
    kept = sum(float(module.weight.detach().double().square().sum()) for _, module, _ in layers)
    for _, module, mask in layers:
        masks.attach(module, replace(mask, group_rows=max(ROWS, mask.block)))
    total = sum(mask.full.numel() for _, _, mask in layers)
    report = count(masked, example)
    return {
        "form": form,
        "energy": kept / whole,
        "density": sum(mask.kept() for _, _, mask in layers) / total,
        "opened": sum(report.opened[name] * mask.full.numel() for name, _, mask in layers) / total,
        "flops": report.flops / report.flops_dense,
        "flops_opened": report.flops_opened / report.flops_dense,
    }


def measure(model: nn.Module, example: Example, flops: float, slacks: list[float]) -> list[dict[str, Any]]:
    """The rows: blocks of 8, of 64, and 8 in 64 by slack."""
    forms: dict[str, dict[str, Any]] = {f"{block} x 1": {"block": block} for block in (BLOCK, ROWS)}
    for slack in slacks:
        forms[f"{BLOCK} in {ROWS}, slack {slack:g}"] = {"block": BLOCK, "group_rows": ROWS, "slack": slack}
    return [row(form, model, impose(model, Budget(flops=flops), example, **options), example) for form, options in forms.items()]


def bars(rows: list[dict[str, Any]]) -> list[Bar]:
    """For each slack: energy against blocks of 64, and open columns against those of blocks of 8."""
    small, large, *others = rows
    made = []
    for one in others:
        note = f"energy {one['energy']:.4f}, density {one['density']:.3f}, open {one['opened']:.3f}, flops open {one['flops_opened']:.3f}"
        lost = 1 - one["energy"] / small["energy"]
        made.append(Bar(f"{one['form']}: energy lost against {small['form']}", lost, 1 - large["energy"] / small["energy"], True, note))
        made.append(Bar(f"{one['form']}: share of multiply-adds open", one["flops_opened"], small["flops_opened"] + 1e-9, True))
    return made


def main(
    network: Annotated[str, typer.Option(help="A zoo network.")] = "resnet56",
    weights: Annotated[Path | None, typer.Option(help="Its weights, .safetensors. Default: random ones.")] = None,
    flops: Annotated[float, typer.Option(help="Share of the multiply-adds that masks take away.")] = 0.6,
    slacks: Annotated[str, typer.Option(help="Slacks with commas between.")] = "1.25,1.5,2",
    out: OutOption = None,
) -> None:
    """Energy kept and columns opened by masks in one level and in two."""
    try:
        model = zoo.build(network)
        if weights is not None:
            model = zoo.load_weights(model, weights)
        rows = measure(model, zoo.example(network), flops, [float(slack) for slack in slacks.split(",")])
    except (ValueError, OSError) as error:
        typer.echo(f"hierarchical_masks: {error}", err=True)
        raise typer.Exit(2) from error
    command = "python -m cosparse.bench.claims.hierarchical_masks " + " ".join(sys.argv[1:])
    for one in rows:
        cells = (f"{one[key]:7.4f}" for key in ("energy", "density", "opened", "flops", "flops_opened"))
        typer.echo(f"{one['form']:24} " + " ".join(cells))
    conclude("hierarchical_masks", f"Masks in two levels, {network}, -{flops:.0%} multiply-adds", command, bars(rows), rows, out)


if __name__ == "__main__":
    typer.run(main)
