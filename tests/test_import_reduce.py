"""Reductions, roots, powers and norms against torch: on images, on rows, with and without the axis kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from import_check import Apply
from torch import Tensor, nn

from cosparse.compress.importer import from_torch
from cosparse.errors import UnsupportedError
from cosparse.kernels import reference

IMAGE, ROW = (2, 6, 5, 7), (2, 6)
P = torch.tensor([3.0])

FORMS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], set[str]]] = {
    "sum over the map": (lambda x: x.sum((2, 3)), IMAGE, {"sum"}),
    "sum over the map, kept": (lambda x: x.sum((2, 3), keepdim=True), IMAGE, {"sum"}),
    "sum over channels": (lambda x: x.sum(1, keepdim=True), IMAGE, {"sum"}),
    "sum over rows": (lambda x: x.sum(2, keepdim=True), IMAGE, {"sum"}),
    "sum of a row": (lambda x: x.sum(1, keepdim=True) + x, ROW, {"sum", "reshape", "add"}),
    "mean of a row": (lambda x: x - x.mean(1, keepdim=True), ROW, {"mean", "reshape", "sub"}),
    "max over channels": (lambda x: torch.max(x, 1, keepdim=True)[0] * x, IMAGE, {"amax", "mul"}),
    "max over channels, dropped and back": (lambda x: torch.max(x, dim=1)[0].unsqueeze(1) * x, IMAGE, {"amax", "mul"}),
    "amax over channels": (lambda x: x.amax(1, keepdim=True), IMAGE, {"amax"}),
    "amin over channels": (lambda x: x.amin(1, keepdim=True), IMAGE, {"affine", "amax"}),
    "min over columns": (lambda x: torch.min(x, 3, keepdim=True).values, IMAGE, {"affine", "amax"}),
    "max over the map by view": (lambda x: x.view(x.size(0), x.size(1), -1).max(2)[0], IMAGE, {"adaptive_max_pool", "reshape"}),
    "spatial attention": (
        lambda x: x * torch.sigmoid(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1).sum(1, keepdim=True)),
        IMAGE,
        {"mean", "amax", "concat", "sum", "activation", "mul"},
    ),
    "sum over what was stacked": (lambda x: torch.stack([x, 2 * x, x * x], 1).sum(1), IMAGE, {"affine", "mul", "add"}),
    "mean over what was stacked last, kept": (
        lambda x: torch.stack([x, x * x], 4).mean(4, keepdim=True).squeeze(4),
        IMAGE,
        {"mul", "add", "affine"},
    ),
    "a largest part and its mean": (lambda x: x.view(x.size(0), 2, 3, 5, 7).amax(1).mean((2, 3)), IMAGE, {"slice", "maximum", "mean"}),
    "maxout over neighbours": (lambda x: x.view(x.size(0), 3, 2, 5, 7).max(2)[0], IMAGE, {"slice", "maximum"}),
    "a mean over parts and the map": (lambda x: x.view(x.size(0), 2, 3, 5, 7).mean((1, 3, 4)), IMAGE, {"slice", "add", "affine", "mean"}),
    "least over parts of a row": (lambda x: x.view(x.size(0), 3, 2).amin(2), ROW, {"affine", "slice", "maximum"}),
    "maximum": (lambda x: torch.maximum(x, x.mean((2, 3), keepdim=True)), IMAGE, {"mean", "maximum"}),
    "largest of two": (lambda x: torch.max(x, x.mean((2, 3), keepdim=True)), IMAGE, {"mean", "maximum"}),
    "least of two": (lambda x: torch.min(x, 2 * x), IMAGE, {"affine", "minimum"}),
    "largest of a constant": (lambda x: torch.maximum(x, torch.tensor(0.25)), IMAGE, {"activation"}),
    "maxout": (lambda x: torch.max(*x.chunk(2, 1)), IMAGE, {"slice", "maximum"}),
    "sqrt": (lambda x: (x * x + 0.5).sqrt(), IMAGE, {"mul", "affine", "activation"}),
    "rsqrt": (lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6), IMAGE, {"mul", "mean", "affine", "activation", "div"}),
    "abs": (lambda x: x.abs(), IMAGE, {"activation"}),
    "exp": (lambda x: torch.exp(3 * x), IMAGE, {"affine", "activation"}),
    "log": (lambda x: torch.log(x.abs() + 1), IMAGE, {"activation", "affine"}),
    "powers": (lambda x: x**3 + x**4 - x**5, IMAGE, {"mul", "add", "sub"}),
    "negative powers": (lambda x: (x.abs() + 1) ** -2 + (x.abs() + 1) ** -0.5, IMAGE, {"activation", "affine", "mul", "div", "add"}),
    "a power of a constant": (lambda x: x.abs().pow(P), IMAGE, {"activation", "mul"}),
    "GeM": (lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3), IMAGE, {"activation", "mul", "mean"}),
    "GeM with a parameter": (
        lambda x: F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(P), 1).pow(1.0 / P),
        IMAGE,
        {"activation", "mul", "adaptive_avg_pool"},
    ),
    "normalize a row": (lambda x: F.normalize(x), ROW, {"mul", "reshape", "sum", "activation", "div"}),
    "normalize pixels": (lambda x: F.normalize(x, dim=1), IMAGE, {"mul", "sum", "activation", "div"}),
    "x / norm": (lambda x: x / x.norm(p=2, dim=1, keepdim=True), ROW, {"mul", "reshape", "sum", "activation", "div"}),
    "GRN": (
        lambda x: x * (g := x.norm(p=2, dim=(2, 3), keepdim=True)) / (g.mean(1, keepdim=True) + 1e-6),
        IMAGE,
        {"mul", "sum", "activation", "mean", "affine", "div"},
    ),
    "a norm of magnitudes": (lambda x: x.norm(p=1, dim=1, keepdim=True), IMAGE, {"activation", "sum"}),
    "the largest magnitude": (lambda x: x.norm(p=float("inf"), dim=1, keepdim=True), IMAGE, {"activation", "amax"}),
    "layer norm by hand": (
        lambda x: (x - (u := x.mean(1, keepdim=True))) / torch.sqrt((x - u).pow(2).mean(1, keepdim=True) + 1e-6),
        IMAGE,
        {"mean", "sub", "mul", "affine", "activation", "div"},
    ),
    "variance": (lambda x: x.var((2, 3), keepdim=True, unbiased=False), IMAGE, {"mean", "sub", "mul"}),
    "deviation of channels": (lambda x: x.std(1, keepdim=True), IMAGE, {"mean", "sub", "mul", "affine", "activation"}),
    "cosine": (lambda x: F.cosine_similarity(x[:, :3], x[:, 3:])[:, None], ROW, set()),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_computes_what_torch_does(name: str) -> None:
    function, shape, ops = FORMS[name]
    model = nn.Sequential(Apply(lambda x: 1.5 * x), Apply(function))
    graph = from_torch(model, torch.zeros(shape))
    if ops:
        assert {node.op for node in graph.nodes[1:]} <= ops | {"reshape"}
        assert ops <= {node.op for node in graph.nodes}
    for batch in (1, 3):
        x = torch.randn((batch, *shape[1:]), generator=torch.Generator().manual_seed(batch))
        (got,) = reference.run(graph, x.numpy())
        want = model.double()(x.double())
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: x - x.max(), "a maximum over the batch"),
        (lambda x: x - x.sum(), "a sum over the batch or over part of an axis"),
        (lambda x: x.norm(p=3, dim=1, keepdim=True), "a norm other than 1, 2 and infinity"),
        (lambda x: x**0, "a power that is computed, or 0"),
    ],
)
def test_what_no_operator_gives_is_refused_by_name(function: Callable[[Tensor], Tensor], text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        from_torch(Apply(function), torch.zeros(IMAGE))
