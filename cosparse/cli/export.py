"""`cosparse export`: a torch network as an artifact, as it is or with masks imposed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cosparse.atomic import require_writable
from cosparse.cli import onnx_file, source
from cosparse.cli.output import JsonOption, emit, progress
from cosparse.cli.values import LARGEST, GroupOption, GroupRowsOption, LatencyTableOption, SlackOption, TransformOption, latency, share
from cosparse.errors import Error


def command(
    network: source.NetworkArgument,
    out: Annotated[Path, typer.Option(help="The artifact to write, NAME.cosparse.")],
    weights: source.WeightsOption = None,
    impose_flops: Annotated[float | None, typer.Option(help="Mask away this share of the multiply-adds, without training.")] = None,
    impose_params: Annotated[float | None, typer.Option(help="Mask away this share of the parameters, without training.")] = None,
    density: Annotated[float | None, typer.Option(help="Keep this share of every layer that can carry a mask, without training.")] = None,
    impose_latency: Annotated[
        float | None, typer.Option(help="Mask until this share of the dense time is gone by --latency-table, without training.")
    ] = None,
    latency_table: LatencyTableOption = None,
    group: GroupOption = False,
    impose_filters: Annotated[
        float | None, typer.Option(help="Before any mask, remove whole filters until this share of the multiply-adds is gone.")
    ] = None,
    transform: TransformOption = "dct",
    block: Annotated[int, typer.Option(help="Filters that share each decision of a mask.")] = 8,
    group_rows: GroupRowsOption = None,
    slack: SlackOption = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="Decides ties between equal weights.")] = 0,
    size: source.SizeOption = None,
    classes: source.ClassesOption = None,
    onnx: Annotated[
        Path | None, typer.Option(help="Also write the network, dense, as an ONNX file for inputs of the example's shape.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write a torch network as an artifact; its outputs are checked against torch first."""
    require_writable("--out", out)
    if onnx is not None:
        require_writable("--onnx", onnx)
    loaded = source.load(network, weights, size, classes)
    shares: dict[str, Any] = {
        "flops": share("--impose-flops", impose_flops),
        "params": share("--impose-params", impose_params),
        "density": density,
    }
    filters = share("--impose-filters", impose_filters)
    from cosparse import compress
    from cosparse.compress.hierarchy import hierarchy

    time = latency(latency_table, impose_latency, option="--impose-latency")
    asked = time is not None or any(value is not None for value in shares.values())
    masked = compress.Budget(**shares, latency=time) if asked else None
    if group and masked is None:
        raise Error("--group", "masks to group the filters for", "none", "give --density or --impose-flops")
    if masked is None and (group_rows is not None or slack is not None):
        raise Error("--group-rows", "masks whose blocks to choose so", "none", "give --density or --impose-flops")
    model = loaded.model
    provenance: dict[str, object] = {"source": network, "weights": weights.name if weights else "random", "method": "none"}
    with progress() as bar:
        task = bar.add_task("masking", total=None)
        removed = None
        if filters is not None:
            model = compress.impose_filters(model, filters, loaded.example)
            removed = filters_removed(loaded.model, model, loaded.example)
            provenance |= {"method": "imposed", "filters_removed_for": filters}
        if masked is not None:
            chosen: dict[str, Any] = {"transform": transform, "block": block, "seed": seed, "group": group}
            model = compress.impose(model, masked, loaded.example, group_rows=group_rows, slack=slack, **chosen)
            groups = hierarchy(group_rows, slack, block)
            provenance |= {"method": "imposed", "budget": masked.settings(), **chosen, **(groups.settings() if groups else {})}
        if weights is None and network.startswith("zoo:") and model is not loaded.model:
            from cosparse.bench import zoo

            zoo.settle(model, loaded.name)
        bar.update(task, description="exporting")
        written = compress.export(model, loaded.example, out, name=loaded.name, preprocessing=loaded.preprocessing, provenance=provenance)
        if onnx is not None:
            bar.update(task, description="writing ONNX")
            inputs = loaded.example if isinstance(loaded.example, tuple) else (loaded.example,)
            onnx_file.write(out, [list(x.shape) for x in inputs], onnx)
    result = {"file": str(out), "bytes": written.bytes, **written.counts.totals(), "largest_relative_difference": written.difference}
    summary = f"{out}: {written.bytes:,} bytes; outputs within {written.difference:.2g} of torch's largest"
    if removed:
        result["filters_removed"] = removed
        before, after = removed["flops_before"], removed["flops_after"]
        share_gone = 1 - after / before
        summary = f"filters removed before: MFLOP {before / 1e6:,.2f} -> {after / 1e6:,.2f} (-{share_gone:.2%})\n{summary}"
    if written.sizes:
        result["sizes"] = written.sizes
        summary = f"{written.sizes}\n{summary}"
    emit(result, json, str(written.counts), f"\n{summary}")


def filters_removed(before: Any, after: Any, example: Any) -> dict[str, float]:
    """Multiply-adds of both networks with all their weights: the counts of the artifact begin with what is left."""
    from cosparse.compress.count import count

    return {"flops_before": count(before, example).flops_dense, "flops_after": count(after, example).flops_dense}
