"""Claim: a network that loses most of its multiply-adds is faster than its dense self on the fastest peer, whatever its architecture.

    python -m cosparse.bench.claims.other_networks --cache DIR

Networks that nothing was tuned for, 70 % of their multiply-adds taken by masks. What masks do not touch, depthwise layers, small networks'
element-wise steps and first layers, weighs more here than in network_table. Exit status: 0 all bars kept, 1 some missed, 2 bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cosparse.bench.claims.network_table import Row, bars, measure
from cosparse.bench.claims.networks import Variant
from cosparse.bench.claims.verdict import OutOption, conclude
from cosparse.bench.peers import PEERS
from cosparse.bench.settings import Settings
from cosparse.bench.timing import Effort
from cosparse.engine.engine import default_threads
from cosparse.errors import Error

NETWORKS = (
    *("resnet18", "densenet121", "googlenet", "inception_v3", "squeezenet1_1", "shufflenet_v2_x1_0"),
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "unet"),
)
FLOPS = 0.7


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifacts; exported once.")],
    networks: Annotated[str, typer.Option(help="Networks of the zoo with commas between.")] = ",".join(NETWORKS),
    against: Annotated[str, typer.Option(help="Peers with commas between.")] = ",".join(PEERS),
    seconds: Annotated[float, typer.Option(min=0.05, help="Timed seconds for each candidate.")] = 1.0,
    out: OutOption = None,
) -> None:
    """Time networks of other architectures against the fastest dense peer."""
    settings = Settings(1, default_threads(), tuple(against.split(",")), effort=Effort(seconds), cold_start=False, layers=False)
    data, held = [], []
    try:
        for name in networks.split(","):
            if name not in NETWORKS:
                raise Error("--networks", f"some of {', '.join(NETWORKS)}", repr(name))
            row = Row(name, Variant(name, flops=FLOPS), 1.0, round(1 / (1 - FLOPS), 2))
            data.append(measure(row, cache, settings))
            held += bars(row, data[-1:])
    except (ValueError, OSError) as error:
        typer.echo(f"other_networks: {error}", err=True)
        raise typer.Exit(2) from error
    command = "python -m cosparse.bench.claims.other_networks " + " ".join(sys.argv[1:])
    conclude("other_networks", "Other architectures against the fastest dense peer", command, held, data, out)


if __name__ == "__main__":
    typer.run(main)
