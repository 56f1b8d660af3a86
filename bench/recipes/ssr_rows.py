"""The experiments of docs/results/ssr.md, one row each: network, weights to start from, options of `cosparse compress`."""

from __future__ import annotations

from cosparse.bench.recipes.rows import Row

JPEG20, JPEG56, FCN = "cifar_resnet20_jpeg.safetensors", "cifar_resnet56_jpeg.safetensors", "fcn.safetensors"

SEARCH = "--method ssr-pso --importance activations --multiple 4 --evaluations 200"


def _row(table: str, name: str, network: str, weights: str, options: str) -> Row:
    return Row(name, table, network, weights, (*options.split(), "--precision", "bfloat16"))


def _reached() -> list[Row]:
    return [
        _row("reached", "resnet20-50", "resnet20", JPEG20, f"{SEARCH} --flops 0.5 --epochs 0,18 --lr 0.06 --weight-decay 3e-4"),
        _row("reached", "resnet20-60", "resnet20", JPEG20, f"{SEARCH} --flops 0.6 --epochs 0,36 --lr 0.06 --weight-decay 3e-4"),
        _row("reached", "resnet56-50", "resnet56", JPEG56, f"{SEARCH} --flops 0.5 --epochs 0,5"),
        _row("reached", "resnet56-60", "resnet56", JPEG56, f"{SEARCH} --flops 0.6 --epochs 0,6"),
    ]


def _together() -> list[Row]:
    """Filters first, then masks; the masks alone at the same share are rows of the NNCS page, with as many epochs."""
    both = "--method ssr-pso+nncs --importance activations --multiple 8 --evaluations 100 --epochs 0,5"
    return [_row("together", "resnet56-both-80", "resnet56", JPEG56, f"{both} --flops 0.8 --filters-flops 0.3")]


def _time() -> list[Row]:
    """Filters removed for their time on the engine; `resnet56-60` is the row that it has to beat at the time that it takes."""
    table = "--latency-table docs/results/ssr/resnet56-widths.json --latency-ms 0.7543"
    return [_row("time", "resnet56-time", "resnet56", JPEG56, f"{SEARCH} {table} --epochs 0,6")]


def _segmentation() -> list[Row]:
    options = "--method ssr-pso --importance activations --evaluations 60 --classes 11 --size 3,180,240 --epochs 0,4 --batch 8 --lr 0.01"
    return [_row("segmentation", "fcn-44", "fcn_resnet50", FCN, f"{options} --flops 0.441")]


ROWS = {row.name: row for row in (*_reached(), *_time(), *_together(), *_segmentation())}
