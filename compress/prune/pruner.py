"""SSR+PSO: filters ranked by self-representation, how many each group keeps learnt by a swarm from the pruned network's own loss.

    pruner = FilterPruner(budget=Budget(flops=0.5)).fit(model, train_loader, example)
    pruner.finetune(train_loader, val_loader, epochs=(0, 10));   pruner.model, pruner.report

Every candidate of the search costs the same (`Problem.repaired`), so that the loss alone decides. What the paper leaves open is ours:
norms, constants, the fold, the search's budget (docs/ssr.md).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cosparse.compress import given, masks
from cosparse.compress.budget import Budget
from cosparse.compress.count import as_tuple, count
from cosparse.compress.latency import by_widths, width_times
from cosparse.compress.prune import architecture
from cosparse.compress.prune.costs import Costs, costs
from cosparse.compress.prune.coupling import ChannelGroup, coupled
from cosparse.compress.prune.moments import moments
from cosparse.compress.prune.order import IMPORTANCES, SHARE, following, orders
from cosparse.compress.prune.report import PruneReport, report
from cosparse.compress.prune.rounding import MULTIPLES, Rounding, least
from cosparse.compress.prune.starts import by_sensitivity
from cosparse.compress.prune.trial import Filled, Trial, Widths
from cosparse.compress.recipe import PRECISIONS, Recipe
from cosparse.compress.runners import Runner, serially
from cosparse.compress.search import Found, Problem
from cosparse.compress.searches import SEARCHES
from cosparse.compress.selfrep import SCALES
from cosparse.compress.train import History, train
from cosparse.errors import Error

QUICK = 4
"""Batches of calibration that a candidate's statistics are taken on; the network that is chosen gets them all."""

WORTH = 3
"""Evaluations for each group from which the swarm spends one a group on a start by sensitivity."""

Tell = Callable[[str, int, int], None]
"""Hears (what is being done, how many are done, of how many)."""


class FilterPruner:
    """Prunes filters of a trained model until the budget is met; `fit` finds how, `finetune` trains what is left.

    `importance`: which filters of a group go first (order.IMPORTANCES), with `scale` and `share` as in selfrep. `search`: how many each
    group keeps (searches.SEARCHES), from `evaluations` candidates at most. `multiple`: channels stay in multiples of it; None takes what
    `target` ("cpu", "cuda") likes. `max_rate`: the largest share that a group may lose. `residual`: whether channels that several layers
    make, as residual sums do, may go too. `fold`: let what stays take over what went (moments). `calibration`, `scoring`: batches for
    statistics and for the loss, in products of `precision`. `runner`: where candidates are scored (`runners.Processes`, `runners.OnRay`).
    """

    def __init__(
        self,
        importance: str = "self-representation",
        search: str = "pso",
        budget: Budget | None = None,
        *,
        evaluations: int = 600,
        multiple: int | None = None,
        target: str = "cpu",
        max_rate: float = 0.9,
        residual: bool = True,
        scale: str = "raw",
        share: float = SHARE,
        fold: bool = True,
        calibration: int = 10,
        scoring: int = 8,
        precision: str = "float32",
        seed: int = 0,
        runner: Runner = serially,
    ) -> None:
        for name, value, allowed in (
            ("importance", importance, IMPORTANCES),
            ("search", search, tuple(SEARCHES)),
            ("scale", scale, SCALES),
            ("precision", precision, PRECISIONS),
        ):
            if value not in allowed:
                raise Error(name, f"one of {', '.join(allowed)}", repr(value))
        if budget is None or budget.density is not None:
            raise Error("budget", "shares of flops, params or latency", "none" if budget is None else "a density", "Budget(flops=0.5)")
        if budget.latency is not None:
            by_widths(budget.latency)
        if target not in MULTIPLES:
            raise Error("target", f"one of {', '.join(MULTIPLES)}", repr(target))
        if not 0 < max_rate < 1:
            raise Error("max_rate", "a share in (0, 1)", repr(max_rate))
        if min(evaluations, calibration, scoring) < 1:
            raise Error(
                "FilterPruner", "at least 1 evaluation, batch of calibration and of scoring", f"{evaluations}, {calibration}, {scoring}"
            )
        self.budget, self.search, self.runner, self.seed = budget, search, runner, seed
        self.importance, self.scale, self.share, self.fold = importance, scale, share, fold
        self.evaluations, self.multiple, self.max_rate, self.residual = evaluations, multiple or MULTIPLES[target], max_rate, residual
        self.calibration, self.scoring, self.precision = calibration, scoring, precision
        self._made: tuple[nn.Module, nn.Module, PruneReport, Found] | None = None

    @property
    def model(self) -> nn.Module:
        """The smaller network: plain layers, in evaluation mode."""
        return self._fitted()[0]

    @property
    def dense(self) -> nn.Module:
        """The network that was given, the teacher of `finetune`."""
        return self._fitted()[1]

    @property
    def report(self) -> PruneReport:
        """Every layer before and after."""
        return self._fitted()[2]

    @property
    def found(self) -> Found:
        """What the search found; `widths` are one for each group that was searched, in the report's `search["groups"]`."""
        return self._fitted()[3]

    def _fitted(self) -> tuple[nn.Module, nn.Module, PruneReport, Found]:
        if self._made is None:
            raise Error("FilterPruner", "fit(model, train_loader, example) first", "no network yet")
        return self._made

    def settings(self) -> dict[str, Any]:
        """What decides the outcome besides model and data, as plain data."""
        names = (
            "search",
            "evaluations",
            "importance",
            "scale",
            "share",
            "fold",
            "multiple",
            "max_rate",
            "residual",
            "calibration",
            "scoring",
            "precision",
            "seed",
        )
        return {"budget": self.budget.settings(), **{name: getattr(self, name) for name in names}}

    def fit(
        self,
        model: nn.Module,
        train_loader: Iterable,
        example: torch.Tensor | tuple[torch.Tensor, ...],
        val_loader: Iterable | None = None,
        *,
        save_to: str | Path | None = None,
        resume: bool = False,
        progress: Tell | None = None,
    ) -> FilterPruner:
        """Searches and prunes; the model given is left as it is.

        `train_loader` yields (x, labels); its first `calibration` batches, or all it has, give the statistics. Candidates are scored on
        `val_loader`, a part of the training data that is held out: never on test images. Without one the next `scoring` batches of
        `train_loader` serve, which fine-tuning will see. `save_to` keeps the search's state, from which `resume` goes on. Raises Error
        where no group may lose channels or the budget is beyond reach.
        """
        tell, model = progress or (lambda what, done, of: None), given.taken(model)
        if any(True for _ in masks.masked(model)):
            raise Error("model", "a network without masks", "masks", "prune filters first, then mask what is left")
        inputs = as_tuple(example)
        tell("finding the channels that go together", 0, 1)
        coupling, before = coupled(model, inputs), count(model, example)
        left = {group.name: self._left(group) for group in coupling.groups}
        groups = [group for group in coupling.groups if not left[group.name]]
        if not groups:
            reasons = "; ".join(f"{name}: {why}" for name, why in left.items())
            raise Error(
                "filters", "a group that may lose channels", reasons[:300] or "no groups", "a smaller multiple, or NNCS, which needs none"
            )
        table = width_times(self.budget.latency, before) if self.budget.latency else None
        cost, rounding = costs(model, before, groups, table), Rounding.of(groups, self.multiple)
        self._require_reach(cost, rounding)
        trial, over = self._trial(model, groups, inputs, train_loader, val_loader, tell), partial(cost.over, self.budget)
        found = self._searched(trial, rounding, over, save_to, resume, tell)
        best = rounding.filled(found.widths, over)
        made, found = trial.network(best), replace(found, widths=best)
        named = {group.name: [group.channels, width] for group, width in zip(groups, best, strict=True)}
        notes = {**self.settings(), "groups": named, "fitness": found.fitness, "evaluated": found.evaluations}
        notes["history"] = list(found.history)
        self._made = (made, model, report(before, count(made, example), coupling.groups, left, notes), found)
        return self

    def save(self, path: str | Path) -> None:
        """Writes the smaller network as it is now, its architecture and how it was found, atomically: see `architecture`."""
        architecture.save(self.model, path, {"search": dict(self.report.search)})

    def restore(self, model: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...], path: str | Path) -> FilterPruner:
        """Takes over what `save` wrote, instead of `fit`; `model` is the network that was given to it.

        Raises Error where the file is of other settings or another network.
        """
        about = architecture.read(path)
        search = (about or {}).get("notes", {}).get("search")
        settings = json.loads(json.dumps(self.settings()))
        if not isinstance(search, dict) or any(search.get(name) != value for name, value in settings.items()):
            before = search if isinstance(search, dict) else {}
            differing = [f"{name} {before.get(name)} instead of {value}" for name, value in settings.items() if before.get(name) != value]
            raise Error(str(path), "a pruned network of the same settings", ", ".join(differing), "prune with those settings or start anew")
        try:
            widths = tuple(int(width) for _, width in search["groups"].values())
            found = Found(widths, float(search["fitness"]), int(search["evaluated"]), tuple(map(float, search["history"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            got = f"{type(error).__name__}: {error}"
            raise Error(str(path), "what a search found: groups, fitness, evaluated, history", got, "start anew") from error
        made = architecture.restore(copy.deepcopy(model), path).eval()
        coupling = coupled(model, example)
        left = {group.name: self._left(group) for group in coupling.groups}
        self._made = (made, model, report(count(model, example), count(made, example), coupling.groups, left, search), found)
        return self

    def _left(self, group: ChannelGroup) -> str:
        """Why the group is not searched, or the empty string."""
        if group.why:
            return group.why
        if not self.residual and group.makers > 1:
            return f"{group.makers} layers make its channels"
        fewest = least(group, Rounding.of([group], self.multiple).steps[0])
        if group.channels <= fewest:
            return f"{group.channels} channels, of which {fewest} stay in any case"
        return ""

    def _trial(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        inputs: tuple[torch.Tensor, ...],
        train_loader: Iterable,
        val_loader: Iterable | None,
        tell: Tell,
    ) -> Trial:
        tell("statistics", 0, 1)
        batches = list(islice(iter(train_loader), self.calibration + (0 if val_loader is not None else self.scoring)))
        scoring = list(islice(iter(val_loader), self.scoring)) if val_loader is not None else batches[self.calibration :]
        if not batches or not scoring:
            wanted = f"{self.calibration} batches for statistics, and more for scoring as there is no val_loader"
            raise Error("train_loader", wanted, f"{len(batches)} batches", "give a val_loader, or smaller batches")
        calibration = [x for x, _ in batches[: self.calibration]]
        inner = moments(model, groups, calibration) if self.fold or self.importance == "activations" else None
        tell("ranking filters", 0, 1)
        follows = following(model, inputs)
        order = orders(model, groups, self.importance, scale=self.scale, share=self.share, follows=follows, moments=inner, seed=self.seed)
        frozen = given.copied(model).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return Trial(frozen, tuple(groups), order, inner if self.fold else None, calibration, scoring, self.precision)

    def _require_reach(self, cost: Costs, rounding: Rounding) -> None:
        widths = rounding.widths(np.full(len(rounding.groups), self.max_rate))
        if cost.over(self.budget, widths) <= 1:
            return
        most = {"flops": 1 - cost.flops(widths) / cost.report.flops_dense, "params": 1 - cost.params(widths) / cost.report.params_dense}
        reach = [f"{name} -{most[name]:.1%}" for name in most if getattr(self.budget, name) is not None]
        asked = [f"{name} -{getattr(self.budget, name):.1%}" for name in most if getattr(self.budget, name) is not None]
        if self.budget.latency is not None:
            reach.append(f"latency {cost.us(widths) / 1e3:.4g} ms")
            asked.append(f"latency {self.budget.latency.bound_us / 1e3:.4g} ms")
        expected = f"at most {', '.join(reach)} ({len(rounding.groups)} groups of channels, {self.multiple} or more of each kept)"
        raise Error("budget", expected, ", ".join(asked), "ask for less, raise max_rate, or mask what filters leave")

    def _searched(
        self, trial: Trial, rounding: Rounding, over: Callable[[Widths], float], save_to: str | Path | None, resume: bool, tell: Tell
    ) -> Found:
        upper, starts = np.full(len(rounding.groups), self.max_rate), []
        fitness = Filled(replace(trial, calibration=trial.calibration[:QUICK]), rounding, over)
        goes_on = resume and save_to is not None and Path(save_to).exists()
        left = self.evaluations
        if self.search == "pso" and left >= WORTH * len(upper):
            left -= len(upper)
            if not goes_on:
                tell("sensitivity of each group", 0, 1)
                starts = [by_sensitivity(fitness.trial, rounding, upper, self.runner)]
        tell("searching", 0, self.evaluations)
        heard = lambda evaluated, best: tell(f"searching, loss {best:.4f}", evaluated, self.evaluations)  # noqa: E731
        problem = Problem(upper, rounding.widths, over, 1.0, fitness, json.loads(json.dumps(self.settings())))
        options: dict[str, Any] = {"save_to": save_to, "resume": resume, "progress": heard}
        return SEARCHES[self.search](problem, left, seed=self.seed, runner=self.runner, starts=starts, **options)

    def finetune(
        self, train_loader: Iterable, val_loader: Iterable | None = None, epochs: tuple[int, int] = (0, 10), **options: Any
    ) -> History:
        """Trains the smaller network in place, with the dense one as teacher: `epochs[0]` at the full rate, `epochs[1]` under a cosine.

        `options` as in `train.train`: save_to, resume, progress, on_epoch, and the fields of `Recipe`.
        """
        entries = train(self.model, train_loader, val_loader, epochs, teacher=self.dense, **options)
        recipe = asdict(Recipe(**{name: value for name, value in options.items() if name in {f.name for f in fields(Recipe)}}))
        return History(entries, self.report.after, {"epochs": list(epochs), **self.settings(), **recipe})
