"""`cosparse bench`: the engine against dense peers, on this machine, now; on the CPU or on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosparse.cli import bench_jobs, bench_outputs
from cosparse.cli.bench_outputs import BlockOption, CsvLayersOption, CsvOption, DensityOption, ReportOption, RooflineOption
from cosparse.cli.device import DeviceOption, on_gpu, refuse
from cosparse.cli.output import JsonOption, Phases, emit, progress
from cosparse.cli.values import IsaOption, SecondsOption, integers, read_array, words
from cosparse.errors import Error


def command(
    network: Annotated[str, typer.Argument(help="NAME.cosparse; with --density, zoo:NAME or path/file.py:factory.")],
    batch: Annotated[str, typer.Option(help="Images a run; several with commas between.")] = "1",
    threads: Annotated[str | None, typer.Option(help="Threads; several with commas between. Default: COSPARSE_THREADS, else all.")] = None,
    against: Annotated[str | None, typer.Option(help="Peers with commas between, or none. Default: those that are installed.")] = None,
    device: DeviceOption = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option(help="What engine and peers compute in: float32 (default), bfloat16, int8; on a GPU float16 (default), bfloat16."),
    ] = None,
    calibration: Annotated[
        list[Path] | None, typer.Option(help="With int8: images to calibrate on, .npy [M, C, H, W]; once for each input. Default: noise.")
    ] = None,
    isa: IsaOption = None,
    seconds: SecondsOption = 2.0,
    layers: Annotated[bool, typer.Option(help="Also the time of each layer.")] = True,
    cold_start: Annotated[bool, typer.Option(help="Also start each candidate alone: load time, first run, memory.")] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 1 if outputs differ, or if a peer or a dense kernel of ours is faster.")
    ] = False,
    density: DensityOption = None,
    block: BlockOption = 8,
    report: ReportOption = None,
    roofline: RooflineOption = None,
    csv: CsvOption = None,
    csv_layers: CsvLayersOption = None,
    json: JsonOption = None,
) -> None:
    """Time a network against the same network, dense, on other runtimes."""
    if density is None and (network.startswith("zoo:") or ".py:" in network):
        export = f"cosparse export {network} --impose-flops 0.6 --out net.cosparse"
        raise Error("NETWORK", "an artifact", network, f"export it first ({export}), or give --density")
    sizes = integers("--batch", batch)
    peers = None if against is None else words(against)
    if on_gpu(device):
        refuse(device, {"--threads": threads, "--isa": isa, "--calibration": calibration, "--density": density})
        jobs = bench_jobs.on_gpu(Path(network), device, dtype, sizes, peers, seconds, layers)
    else:
        images = tuple(map(read_array, calibration)) if calibration else None
        counts = integers("--threads", threads) if threads else None
        measure = bench_outputs.sweeper(network, density, block) if density else None
        jobs = bench_jobs.on_cpu(Path(network), dtype, sizes, peers, seconds, layers, counts, isa, cold_start, images, measure)
    bench_outputs.require_one_setting(roofline, len(jobs), layers, density)
    results = []
    with progress() as bar:
        for job in jobs:
            results.append(job(Phases(bar)))
    bench_outputs.write(results, report, csv, csv_layers, roofline)
    shown = [table for result in results for table in bench_outputs.tables(result)]
    emit(results[0] if len(jobs) == 1 else results, json, *shown)
    failures = [reason for reason in map(bench_outputs.failure, results) if reason]
    if strict and failures:
        typer.echo(f"cosparse: {'; '.join(failures)}", err=True)
        raise typer.Exit(1)
