"""The part of `cosparse compress` that removes filters: search, the smaller network before training, the shares that each step removed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosparse.cli.source import Source
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress import Budget, FilterPruner
    from cosparse.compress.count import Report
    from cosparse.compress.prune.report import PruneReport


def validation_share(images: int, least: float) -> float:
    """Share of the training images that is held out: about a thousand to score candidates on, a tenth at most."""
    return min(0.1, max(least, 1000 / images))


def split(budget: Budget, filters_flops: float | None) -> Budget:
    """What filters take away first, of a budget in multiply-adds (and parameters) for filters and masks together."""
    from cosparse.compress import Budget

    if budget.flops is None or budget.latency is not None:
        raise Error(
            "--method ssr-pso+nncs", "--flops, which is shared between filters and masks", "another budget", "run the methods one by one"
        )
    share = 1 - (1 - budget.flops) ** 0.5 if filters_flops is None else filters_flops
    if not 0 < share < budget.flops:
        raise Error("--filters-flops", f"a share between 0 and --flops {budget.flops:g}", repr(share))
    return Budget(flops=share)


def rest(budget: Budget, done: PruneReport) -> Budget:
    """What is left for the masks of the smaller network, as shares of it."""
    from cosparse.compress import Budget

    left = {name: getattr(budget, name) for name in ("flops", "params") if getattr(budget, name) is not None}
    gone = {"flops": done.flops_reduction, "params": done.params_reduction}
    return Budget(**{name: max(0.0, 1 - (1 - share) / (1 - gone[name])) for name, share in left.items()})


def prune(
    loaded: Source,
    settings: dict[str, Any],
    budget: Budget,
    workers: int,
    training: Iterable,
    validation: Iterable,
    out: Path,
    resume: bool,
    tell: Any,
) -> FilterPruner:
    """The fitted pruner. Its network before training is kept beside `out`, from which `resume` goes on, else from the search's state."""
    from cosparse.compress import FilterPruner
    from cosparse.compress.runners import Processes, serially

    start, state = out.with_suffix(".start.safetensors"), out.with_suffix(".search.json")
    with ExitStack() as stack:
        runner = stack.enter_context(Processes(workers)) if workers > 1 else serially
        pruner = FilterPruner(budget=budget, runner=runner, **settings)
        if resume and start.exists():
            return pruner.restore(loaded.model, loaded.example, start)
        pruner.fit(loaded.model, training, loaded.example, validation, save_to=state, resume=resume, progress=tell)
    pruner.save(start)
    return pruner


def shares(pruned: PruneReport, now: Report) -> dict[str, Any]:
    """What went, of the network as it was given: by filters, by masks in what they left, and together."""
    both = {
        "params_dense": pruned.before.params_dense,
        "params_reduction": 1 - now.params / pruned.before.params_dense,
        "flops_dense": pruned.before.flops_dense,
        "flops_reduction": 1 - now.flops / pruned.before.flops_dense,
    }
    masks = {"params_reduction": now.params_reduction, "flops_reduction": now.flops_reduction}
    return {**both, "filters": {**pruned.totals(), **pruned.search}, "masks": masks}
