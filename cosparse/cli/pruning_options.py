"""Options of `cosparse compress --method ssr-pso`: how filters are ranked and searched, and which options belong to which method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from cosparse.errors import Error

METHODS = ("nncs", "ssr-pso", "ssr-pso+nncs")

MASKS_ONLY = (
    "score",
    "group",
    "regrow",
    "transform",
    "block",
    "group_rows",
    "slack",
    "recovery",
    "measurement",
    "measure_share",
    "schedule",
)
FILTERS_ONLY = ("importance", "search", "evaluations", "multiple", "max_rate", "residual", "search_workers")
BOTH_ONLY = ("filters_flops",)

ImportanceOption = Annotated[
    str,
    typer.Option(help="Which filters go first: self-representation, activations (the same of the channels' values), magnitude, random."),
]
SearchOption = Annotated[str, typer.Option(help="How rates are found: pso, random, uniform, greedy, cma-es.")]
EvaluationsOption = Annotated[int, typer.Option(min=1, help="Pruned networks that the search scores at most.")]
MultipleOption = Annotated[int | None, typer.Option(min=1, help="Filters stay in multiples of it. Default: 8, what the CPU engine likes.")]
MaxRateOption = Annotated[float, typer.Option(help="Largest share of its filters that a group may lose.")]
ResidualOption = Annotated[bool, typer.Option(help="Also prune channels that several layers add up.")]
SearchWorkersOption = Annotated[int, typer.Option(min=1, help="Processes that score pruned networks.")]
FiltersFlopsOption = Annotated[
    float | None,
    typer.Option(help="ssr-pso+nncs: share of the multiply-adds that filters take away, before masks. Default: 1 - sqrt(1 - FLOPS)."),
]


def require_options_of(method: str, given: Iterable[str]) -> None:
    """Error for an option that was given and that the method does not know."""
    unused = {"nncs": (*FILTERS_ONLY, *BOTH_ONLY), "ssr-pso": (*MASKS_ONLY, *BOTH_ONLY), "ssr-pso+nncs": ()}[method]
    if surplus := [name for name in given if name in unused]:
        raise Error(f"--{surplus[0].replace('_', '-')}", f"an option of --method {method}", "one of another method", "leave it out")
