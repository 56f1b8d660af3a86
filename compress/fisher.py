"""How much the loss feels each coefficient: the diagonal Fisher estimate in the transform domain.

    F_i = mean over batches of (dL/ds_i)^2        dL/ds = T dL/dw        score of a block = sum over the block of F_i s_i^2

Where the gradients' second moment equals the curvature (a model that fits its data), half the score is the loss that dropping the block
costs, to second order. Unlike energy it does not change when a layer's scale is moved into the normalisation behind it. Batch gradients
instead of those of single examples scale all of F alike, up to the mean gradient, which is small near a minimum; the choice of blocks
only asks for ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from cosparse.compress import distributed, transforms
from cosparse.compress.layers import Choice
from cosparse.compress.score import IGNORED, logits_of, placed
from cosparse.errors import Error

Fisher = Mapping[str, torch.Tensor]
"""Layer name -> F, of the weight's shape."""

HORIZON = 1000
"""Steps that the running mean looks back over: all of them at first, later ever less of the weights' past."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of the ready recipes, without smoothing or teacher."""
    return nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED)


class FisherMean:
    """The running mean of squared coefficient gradients over the last HORIZON calls of `add`, by layer name.

    The state is the mean, float32 on the layer's device, and the number of calls; with both a run resumes to the bit. On several ranks
    each adds the gradients that all share, so no further reduction is needed.
    """

    def __init__(self) -> None:
        self.mean: dict[str, torch.Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def add(self, choices: Sequence[Choice]) -> None:
        """Takes in the gradients as they stand in the modules' weights: before anything else than the loss adds to them.

        A layer without a gradient has felt nothing in this step. Gradients that are not finite (a step that a loss scaler skips) leave
        the mean as it is.
        """
        squares = {}
        for choice in choices:
            if choice.transform is not None:
                gradient = choice.module.weight.grad
                gradient = torch.zeros_like(choice.module.weight) if gradient is None else gradient
                squares[choice.name] = transforms.forward(gradient.float(), choice.transform).square()
        if not all(bool(square.isfinite().all()) for square in squares.values()):
            return
        self.count += 1
        for name, square in squares.items():
            if name in self.mean:
                self.mean[name].lerp_(square, 1 / min(self.count, HORIZON))
            else:
                self.mean[name] = square.clone()

    def state(self) -> tuple[dict[str, torch.Tensor], int]:
        """The mean by layer name, and the calls so far."""
        return dict(self.mean), self.count

    def restore(self, mean: Mapping[str, torch.Tensor], count: int, choices: Sequence[Choice]) -> None:
        """Goes on from what `state` gave; Error where that is of another network."""
        layers = {choice.name: choice.module.weight for choice in choices if choice.transform is not None}
        shapes = {name: value.shape for name, value in mean.items()}
        if count and shapes != {name: weight.shape for name, weight in layers.items()}:
            differing = sorted({n for n in {*shapes, *layers} if n not in shapes or n not in layers or shapes[n] != layers[n].shape})
            raise Error("Fisher estimate", "one tensor for each masked layer of this model", f"differences in {', '.join(differing)}")
        self.mean = {name: torch.empty_like(layers[name], dtype=torch.float32).copy_(value) for name, value in mean.items()}
        self.count = count


def fisher(
    model: nn.Module, loader: Iterable[Any], batches: int, choices: Sequence[Choice], *, loss: Loss = cross_entropy
) -> dict[str, torch.Tensor]:
    """F of every layer of `choices` that can carry a mask, float64, from the first `batches` batches (x, labels) of the loader.

    The model runs in evaluation mode (normalisation by its running statistics) and is left as it was, gradients included. On several
    ranks the estimates of all are averaged, so that all return the same. Raises Error where there are no batches, or a gradient is not
    finite.
    """
    if batches < 1:
        raise Error("batches", "at least 1", repr(batches))
    layers = {choice.name: choice for choice in choices if choice.transform is not None}
    weights = {name: choice.module.weight for name, choice in layers.items()}
    wanted = {weight: weight.requires_grad for weight in weights.values()}
    training = {module: module.training for module in model.modules()}
    sums = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    seen = 0
    try:
        model.eval()
        for weight in wanted:
            weight.requires_grad_(True)
        for x, y in islice(loader, batches):
            x = placed(x, model)
            with torch.enable_grad():
                gradients = torch.autograd.grad(loss(logits_of(model(x)), y.to(x.device)), list(weights.values()), allow_unused=True)
            for (name, choice), gradient in zip(layers.items(), gradients, strict=True):
                if gradient is not None and choice.transform is not None:
                    sums[name] += transforms.forward(gradient.double(), choice.transform).square()
            seen += 1
    finally:
        for weight, before in wanted.items():
            weight.requires_grad_(before)
        for module, before in training.items():
            module.training = before
    if seen == 0:
        raise Error("loader", "at least one batch", "none")
    return {name: _shared(total / seen, name) for name, total in sums.items()}


def _shared(mean: torch.Tensor, name: str) -> torch.Tensor:
    """The mean over all ranks, where there are several; checked after that, so that all of them raise or none."""
    if distributed.ranks() > 1:
        torch.distributed.all_reduce(mean)
        mean /= distributed.ranks()
    if not bool(mean.isfinite().all()):
        raise Error(f"gradient of {name}", "finite values", "NaN or infinity", "check the weights and the data")
    return mean
