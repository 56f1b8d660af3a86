"""The Fisher score: true curvature on a planted quadratic, autograd's gradients, a running mean that resumes, masks that follow it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import assert_close
from torch import nn

from cosparse.compress import NNCS, Budget, count, impose, masks, transforms
from cosparse.compress.account import candidates
from cosparse.compress.fisher import HORIZON, FisherMean, fisher
from cosparse.compress.layers import Choice, choose
from tests.compress_nets import Residual, seeded

EPS32 = float(torch.finfo(torch.float32).eps)
EXAMPLE = torch.zeros(1, 1, 8, 8)


def chosen(model: nn.Module, example: torch.Tensor, transform: str = "dct") -> tuple[Choice, ...]:
    return choose(model, count(model, example), transform, 2, {"": transform} if isinstance(model, nn.Conv2d) else None)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = (8, 1, 8, 8)
    return [(torch.randn(shape, generator=generator), torch.randint(0, 10, (8,), generator=generator)) for _ in range(count)]


@pytest.mark.parametrize("transform", ["dct", "identity"])
def test_score_is_curvature_times_the_coefficient_squared(transform: str) -> None:
    """One output a filter, targets one above and one below what the model says: E[g^2] = E[x̂^2], which is the Hessian's diagonal."""
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 3, 3, bias=False).double()
    images = [torch.randn(1, 5, 3, 3, dtype=torch.float64) for _ in range(3)]
    data = [(x, conv(x).detach() + sign) for x in images for sign in (-1.0, 1.0)]

    def loss(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (y - target).square().sum() / 2

    choices = chosen(conv, images[0], transform)
    estimate = fisher(conv, data, 6, choices, loss=loss)[""]

    coefficients = transforms.forward(conv.weight.detach(), transform)

    def total(s: torch.Tensor) -> torch.Tensor:
        weight = transforms.inverse(s.reshape(coefficients.shape), transform)
        return sum(loss(nn.functional.conv2d(x, weight), t) for x, t in data) / len(data)  # type: ignore[return-value]

    curvature = torch.autograd.functional.hessian(total, coefficients.flatten()).diagonal().reshape(coefficients.shape)
    largest = float(curvature.max())
    assert_close(estimate.numpy(), curvature.numpy(), terms=9 * 45, scale=largest)

    blocks = candidates(choices, Budget(density=0.5), {"": estimate})[0][0].energy
    wanted = masks.block_sums(curvature * coefficients.square(), 2).numpy()
    assert_close(blocks, wanted, terms=9 * 45, scale=float(wanted.max()))
    assert blocks.shape == (2, 45)


def test_gradients_are_autograds_and_the_model_stays_as_it_was() -> None:
    model = seeded(Residual).double().train()
    model.conv2.weight.requires_grad_(False)
    model.conv3.weight.grad = torch.ones_like(model.conv3.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = [(x.double(), y) for x, y in batches(3)]
    estimate = fisher(model, iter(data), 2, chosen(model, EXAMPLE.double()))
    assert set(estimate) == {"conv2", "conv3"}
    assert model.training
    assert not model.conv2.weight.requires_grad
    assert bool((model.conv3.weight.grad == 1).all())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    model.requires_grad_(True).eval()
    mean = torch.zeros_like(model.conv3.weight)
    for x, y in data[:2]:
        model.zero_grad()
        nn.functional.cross_entropy(model(x).float(), y).backward()
        mean += transforms.forward(model.conv3.weight.grad, "dct").square() / 2
    # The loss is computed in single precision.
    assert_close(estimate["conv3"].numpy(), mean.numpy(), terms=64, scale=float(mean.max()), eps=EPS32)


def test_running_mean_is_the_mean_and_resumes_to_the_bit() -> None:
    model = seeded(Residual)
    choices = chosen(model, EXAMPLE)
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(model.conv3.weight.shape, generator=generator) for _ in range(7)]
    whole, parts = FisherMean(), FisherMean()
    for step, gradient in enumerate(gradients):
        model.conv3.weight.grad = gradient
        whole.add(choices)
        if step == 3:
            again = FisherMean()
            again.restore(*parts.state(), choices)
            parts = again
        parts.add(choices)
    wanted = torch.stack([transforms.forward(g.double(), "dct").square() for g in gradients]).mean(0).numpy()
    assert_close(whole.mean["conv3"].numpy().astype(np.float64), wanted, terms=7 * 9, scale=float(wanted.max()), eps=EPS32)
    assert bool((whole.mean["conv2"] == 0).all())
    assert parts.count == whole.count == 7
    assert all(torch.equal(parts.mean[name], value) for name, value in whole.mean.items())

    model.conv3.weight.grad = torch.full_like(model.conv3.weight, float("nan"))
    whole.add(choices)
    assert whole.count == 7
    assert bool(whole.mean["conv3"].isfinite().all())


def test_running_mean_forgets_beyond_its_horizon() -> None:
    model = seeded(Residual)
    choices = chosen(model, EXAMPLE)
    mean = FisherMean()
    model.conv3.weight.grad = torch.zeros_like(model.conv3.weight)
    mean.add(choices)
    mean.count = 5 * HORIZON
    model.conv3.weight.grad = torch.ones_like(model.conv3.weight)
    mean.add(choices)
    assert float(mean.mean["conv3"].sum()) == pytest.approx(model.conv3.weight.numel() / HORIZON, rel=1e-4)


def test_masks_follow_the_score_and_not_the_scale() -> None:
    """What the loss does not feel goes first, however large it is."""
    model = seeded(Residual)
    choices = chosen(model, EXAMPLE)
    estimate = {c.name: torch.ones_like(c.module.weight) for c in choices if c.transform}
    estimate["conv2"][:, 8:] = 0
    with torch.no_grad():
        model.conv2.weight[:, 8:] *= 100
    plain = impose(model, Budget(density=0.3), EXAMPLE, 2)
    felt = impose(model, Budget(density=0.3), EXAMPLE, 2, fisher=estimate)
    assert not plain.conv2.cosparse.keep[:, :72].any()
    assert not felt.conv2.cosparse.keep[:, 72:].any()


def train(nncs: NNCS, steps: int) -> None:
    optimizer = torch.optim.SGD(nncs.model.parameters(), lr=0.01, momentum=0.9)
    for x, y in batches(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(nncs.model(x), y).backward()
        nncs.step(optimizer)


def test_step_one_gathers_what_the_masks_need() -> None:
    nncs = NNCS(seeded(Residual).train(), Budget(flops=0.5), EXAMPLE, score="fisher", refresh=2)
    with pytest.raises(ValueError, match=r"NNCS\.mask: expected gradients for the Fisher score, got none yet; step\(\) makes them"):
        nncs.mask()
    train(nncs, 5)
    assert nncs.pull.cut["conv3"].shape == (4, 144)  # by now the pull follows the score, block by block
    wanted, _ = candidates(nncs.choices, nncs.budget, nncs.fisher.mean)
    report = nncs.mask()
    assert 0.5 <= report.flops_reduction < 0.55
    for layer in wanted:
        keep = dict(nncs.model.named_modules())[layer.name].cosparse.keep.numpy()
        assert layer.energy[keep].min() >= layer.energy[~keep].max()


def test_pull_is_full_on_what_the_loss_does_not_feel() -> None:
    from cosparse.compress.impose import thresholds

    model = seeded(Residual)
    choices = chosen(model, EXAMPLE)
    estimate = {c.name: torch.ones_like(c.module.weight) for c in choices if c.transform}
    uniform = thresholds(choices, count(model, EXAMPLE), Budget(flops=0.5), 0, estimate)
    plain = thresholds(choices, count(model, EXAMPLE), Budget(flops=0.5))
    for name, cut in uniform.items():
        assert_close(cut.numpy(), plain[name][:, None].expand(cut.shape).numpy(), terms=4, scale=float(cut.max()), eps=EPS32)
    estimate["conv3"][:2, 0] = 0
    assert bool(thresholds(choices, count(model, EXAMPLE), Budget(flops=0.5), 0, estimate)["conv3"][0, :9].isinf().all())


def test_fit_estimates_where_there_is_no_step_one_and_resumes(tmp_path: Path) -> None:
    options = {"lr": 0.01, "warmup": 1, "distill": 0.0}
    nncs = NNCS(seeded(Residual), Budget(flops=0.5), EXAMPLE, score="fisher")
    nncs.fit(batches(2), None, (0, 1), **options)
    assert nncs.fisher.count > 0

    def interrupt(at) -> None:
        if at.epoch == 1:
            raise KeyboardInterrupt

    whole = NNCS(seeded(Residual), Budget(flops=0.5), EXAMPLE, score="fisher")
    whole.fit(batches(3), None, (2, 1), **options)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        NNCS(seeded(Residual), Budget(flops=0.5), EXAMPLE, score="fisher").fit(
            batches(3), None, (2, 1), save_to=path, progress=interrupt, **options
        )
    resumed = NNCS(seeded(Residual), Budget(flops=0.5), EXAMPLE, score="fisher")
    resumed.fit(batches(3), None, (2, 1), save_to=path, resume=True, **options)
    assert resumed.fisher.count == whole.fisher.count == 6
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_used_is_said() -> None:
    model = seeded(Residual)
    choices = chosen(model, EXAMPLE)
    with pytest.raises(ValueError, match="batches: expected at least 1, got 0"):
        fisher(model, batches(1), 0, choices)
    with pytest.raises(ValueError, match="loader: expected at least one batch, got none"):
        fisher(model, [], 3, choices)
    with pytest.raises(ValueError, match=r"gradient of conv\d: expected finite values"):
        fisher(model, [(torch.full((1, 1, 8, 8), float("nan")), torch.zeros(1, dtype=torch.long))], 1, choices)
    with pytest.raises(ValueError, match=r"Fisher estimate of conv2: expected a tensor \[16, 16, 3, 3\], got none"):
        impose(model, Budget(density=0.5), EXAMPLE, fisher={})
    ones = {c.name: torch.ones_like(c.module.weight) for c in choices if c.transform}
    with pytest.raises(ValueError, match="Fisher estimate of conv2: expected finite values from 0"):
        impose(model, Budget(density=0.5), EXAMPLE, fisher=ones | {"conv2": -ones["conv2"]})
    with pytest.raises(ValueError, match=r"Fisher estimate: expected one tensor for each masked layer .* differences in conv3"):
        FisherMean().restore({"conv2": ones["conv2"]}, 3, choices)
    with pytest.raises(ValueError, match=r"NNCS\.score: expected one of energy, fisher, got 'taylor'"):
        NNCS(model, Budget(flops=0.5), EXAMPLE, score="taylor")
    with pytest.raises(ValueError, match="group: expected no Fisher estimate"):
        impose(model, Budget(density=0.5), EXAMPLE, fisher=ones, group=True)
