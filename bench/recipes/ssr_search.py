"""How filters are ranked, and whether the swarm is worth it: pruned ResNets scored on held-out images, before any training.

    python -m cosparse.bench.recipes.ssr_search --data ../shared/data ranking
    python -m cosparse.bench.recipes.ssr_search --data ../shared/data search

`ranking`: every importance at equal rates, with and without the fold. `search`: every search at one number of evaluations, three seeds
each; the seed moves the search alone. The results are docs/results/ssr/ranking.json and search.json.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

from cosparse.atomic import replacing
from cosparse.bench import zoo
from cosparse.bench.recipes.ssr import RESULTS
from cosparse.compress import Budget, FilterPruner
from cosparse.compress.data import hold_out, loader, open_data
from cosparse.compress.score import evaluate

HELD_OUT = 0.02
SEARCHES = ("pso", "random", "cma-es", "greedy", "uniform")
WITHOUT_SEED = ("greedy", "uniform")
RANKINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("self-representation", {}),
    ("self-representation, share 0.03", {"share": 0.03}),
    ("self-representation, share 0.3", {"share": 0.3}),
    ("self-representation, unit filters", {"scale": "unit"}),
    ("self-representation, batch norm's scale", {"scale": "bn"}),
    ("activations", {"importance": "activations"}),
    ("magnitude", {"importance": "magnitude"}),
    ("magnitude, batch norm's scale", {"importance": "magnitude", "scale": "bn"}),
    ("random", {"importance": "random"}),
)


class Bench:
    """A network with batches to rank, calibrate and score on."""

    def __init__(self, network: str, weights: Path, data: Path) -> None:
        preprocessing = zoo.preprocessing(network)
        training, validation = hold_out(open_data(data, "train"), HELD_OUT, 0)
        self.model = zoo.load_weights(zoo.build(network), weights)
        self.example = zoo.example(network)
        self.training = list(islice(loader(training, preprocessing, 128, train=True), 10))
        self.validation = list(loader(validation, preprocessing, 128))

    def __call__(self, budget: Budget, **options: Any) -> dict[str, Any]:
        pruner = FilterPruner(budget=budget, multiple=4, precision="bfloat16", **options)
        pruner.fit(self.model, self.training, self.example, self.validation)
        score = evaluate(pruner.model, self.validation)
        search = pruner.report.search
        return {
            "loss": round(score.loss, 4),
            "top1": round(100 * score.accuracy, 2),
            "evaluated": search["evaluated"],
            "fitness": search["fitness"],
        }


def ranking(bench: Bench, budget: Budget) -> list[dict[str, Any]]:
    found = []
    for label, options in RANKINGS:
        both = {fold: bench(budget, search="uniform", fold=fold, **options) for fold in (False, True)}
        found.append({"ranking": label, "plain": both[False], "folded": both[True]})
        print(json.dumps(found[-1]), flush=True)
    return found


def search(bench: Bench, budget: Budget, evaluations: int, seeds: int) -> list[dict[str, Any]]:
    found = []
    for name in SEARCHES:
        for seed in range(seeds if name not in WITHOUT_SEED else 1):
            result = bench(budget, search=name, evaluations=evaluations, seed=seed, importance="activations")
            found.append({"search": name, "seed": seed, **result})
            print(json.dumps(found[-1]), flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("ranking", "search"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--network", default="resnet20", help="of the zoo; its weights are cifar_NETWORK_jpeg.safetensors in --data")
    parser.add_argument("--flops", type=float, default=0.6)
    parser.add_argument("--evaluations", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    bench = Bench(options.network, options.data / f"cifar_{options.network}_jpeg.safetensors", options.data)
    budget = Budget(flops=options.flops)
    entries = ranking(bench, budget) if options.what == "ranking" else search(bench, budget, options.evaluations, options.seeds)
    settings = {"network": options.network, "flops": options.flops, "evaluations": options.evaluations}
    with replacing(RESULTS / f"{options.what}.json") as part:
        part.write_text(json.dumps({**settings, "entries": entries}, indent=1) + "\n")


if __name__ == "__main__":
    main()
