"""The experiments of docs/results/nncs.md, one row each: network, weights to start from, options of `cosparse compress`."""

from __future__ import annotations

from cosparse.bench.recipes.rows import Row

JPEG20, JPEG56, VGG = "cifar_resnet20_jpeg.safetensors", "cifar_resnet56_jpeg.safetensors", "vgg16.safetensors"


def _row(table: str, name: str, network: str, weights: str, options: str) -> Row:
    return Row(name, table, network, weights, (*options.split(), "--precision", "bfloat16"))


def _controls() -> list[Row]:
    """Equal parameters kept, equal epochs of step 2 alone, no teacher: what differs is the domain."""
    domains = {"identity": "identity", "random": "random:0!", "dct": "dct!", "klt": "klt!"}  # !: however dear its basis step
    return [
        _row(
            "controls", f"control-{name}-r{r}", "resnet20", JPEG20, f"--params 0.75 --transform {spec} --block {r} --epochs 0,3 --distill 0"
        )
        for r in (1, 4, 8)
        for name, spec in domains.items()
    ]


def _steps() -> list[Row]:
    """Equal epochs in all, at -75 % FLOPs: what each step and each form of step 1 is worth."""
    variants = {
        "both": "--epochs 1,3",
        "step2-only": "--epochs 0,4",
        "step1-only": "--epochs 4,0",
        "gaussian-half": "--epochs 1,3 --recovery fista --measurement gaussian --measure-share 0.5",
        "gaussian-quarter": "--epochs 1,3 --recovery fista --measurement gaussian --measure-share 0.25",
        "fisher": "--epochs 1,3 --score fisher",
        "grouped": "--epochs 1,3 --group",
    }
    return [_row("steps", f"steps-{name}", "resnet20", JPEG20, f"--flops 0.75 {options}") for name, options in variants.items()]


def _reached() -> list[Row]:
    return [
        _row("reached", "resnet20-60", "resnet20", JPEG20, "--flops 0.6 --epochs 1,9"),
        _row("reached", "resnet20-75", "resnet20", JPEG20, "--flops 0.75 --epochs 1,14"),
        _row("reached", "resnet56-60", "resnet56", JPEG56, "--flops 0.6 --epochs 1,7"),
        _row("reached", "vgg16", "vgg16", VGG, "--params 0.948 --flops 0.768 --epochs 1,20 --batch 256"),
        _row("reached", "vgg16-long", "vgg16", VGG, "--params 0.948 --flops 0.768 --epochs 1,30 --batch 256 --weight-decay 5e-4"),
    ]


def _trained_on() -> list[Row]:
    """Nothing removed: what as many epochs of the same recipe bring to the dense network itself."""
    return [
        _row("trained-on", "dense-resnet20", "resnet20", JPEG20, "--params 0 --epochs 0,8"),
        _row("trained-on", "dense-resnet56", "resnet56", JPEG56, "--params 0 --epochs 0,6"),
        _row("trained-on", "dense-vgg16", "vgg16", VGG, "--params 0 --epochs 0,20 --batch 256"),
    ]


def _curves() -> list[Row]:
    """FLOPs removed against accuracy: blocks that run fast, and single coefficients."""
    epochs = {"resnet20": (JPEG20, "0,8"), "resnet56": (JPEG56, "0,6")}
    return [
        _row("curves", f"curve-{network}-r{r}-{share}", network, weights, f"--flops 0.{share} --block {r} --epochs {count}")
        for network, (weights, count) in epochs.items()
        for r in (8, 1)
        for share in (50, 60, 70, 80, 90)
    ]


ROWS = {row.name: row for row in (*_reached(), *_trained_on(), *_controls(), *_steps(), *_curves())}
