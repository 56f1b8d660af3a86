"""NNCS: the penalty's gradient, training on coefficients by projection, and the phases in a user's own loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cosparse.compress import NNCS, Budget, masks, transforms
from cosparse.errors import Error
from tests.compress_nets import Awkward, Residual, seeded

EPS = torch.finfo(torch.float64).eps
EXAMPLE = torch.zeros(1, 1, 8, 8, dtype=torch.float64)


def data(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    shape = (16, 1, 8, 8)
    return [
        (torch.randn(shape, generator=generator, dtype=torch.float64), torch.randint(0, 10, (16,), generator=generator))
        for _ in range(steps)
    ]


def with_coefficients(model: nn.Module) -> tuple[list[nn.Parameter], Callable[[torch.Tensor], torch.Tensor]]:
    """The masked layers' kept coefficients as leaves of their own, and a forward pass that builds the weights from them."""
    layers = list(masks.masked(model))
    leaves = [nn.Parameter(transforms.forward(module.weight.detach(), mask.transform)) for _, module, mask in layers]

    def forward(x: torch.Tensor) -> torch.Tensor:
        weights = {
            f"{name}.weight": transforms.inverse(leaf * mask.full.reshape(leaf.shape), mask.transform)
            for leaf, (name, _, mask) in zip(leaves, layers, strict=True)
        }
        return torch.func.functional_call(model, weights, (x,))

    return leaves, forward


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("transform", ["dct", "identity"])
def test_projected_sgd_is_sgd_on_the_coefficients(transform: str, nesterov: bool) -> None:
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": nesterov}
    model, twin = (seeded(Residual, 5).double() for _ in range(2))
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    nncs = NNCS(model, Budget(flops=0.5), EXAMPLE, transform=transform)
    nncs.mask()

    twin.load_state_dict(model.state_dict())
    masks.from_tensors(twin, *masks.to_tensors(model))
    twin.train()
    leaves, forward = with_coefficients(twin)
    masked = {id(module.weight) for _, module, _ in masks.masked(twin)}
    others = [p for p in twin.parameters() if id(p) not in masked]
    twin_optimizer = torch.optim.SGD([*leaves, *others], **settings)

    for x, y in data(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nncs.step(optimizer)
        twin_optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x), y).backward()
        twin_optimizer.step()

    for leaf, (name, module, mask) in zip(leaves, masks.masked(model), strict=True):
        wanted = transforms.inverse(leaf.detach(), mask.transform)
        # Five steps, each of which rounds sums of up to a few thousand terms; the network's own curvature spreads that a little.
        bound = 5 * 4096 * EPS * float(wanted.abs().max())
        assert (module.weight - wanted).abs().max() <= bound, name


def test_momentum_stays_inside_the_masks() -> None:
    model = seeded(Residual).double().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    nncs = NNCS(model, Budget(flops=0.5), EXAMPLE)
    for step, (x, y) in enumerate(data(4)):
        if step == 2:
            nncs.mask(optimizer)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nncs.step(optimizer)
    for _, module, mask in masks.masked(model):
        momentum = optimizer.state[module.weight]["exp_avg"]
        assert float((momentum - masks.keep_only(momentum, mask)).abs().max()) <= 64 * EPS * float(momentum.abs().max())
        assert masks.residue(module) <= 64 * EPS


def huber(model: nn.Module, nncs: NNCS, cut: dict[str, torch.Tensor], mu: float) -> torch.Tensor:
    """The penalty itself: mu/2 n^2 inside the cut, mu c n - mu/2 c^2 outside, summed over all blocks of norm n."""
    total = torch.zeros((), dtype=torch.float64)
    for choice in nncs.choices:
        if choice.transform is None:
            continue
        coefficients = transforms.forward(choice.module.weight, choice.transform).flatten(1)
        rows = cut[choice.name].shape[0]
        padded = nn.functional.pad(coefficients, (0, 0, 0, rows * choice.block - coefficients.shape[0]))
        norm = padded.reshape(rows, choice.block, -1).square().sum(1).sqrt()
        c = cut[choice.name].double()[:, None].expand_as(norm)
        total = total + torch.where(norm <= c, mu / 2 * norm**2, mu * c * norm - mu / 2 * c**2).sum()
    return total


def test_step_one_adds_the_gradient_of_the_penalty() -> None:
    model = seeded(Awkward).double().train()
    nncs = NNCS(model, Budget(flops=0.6), torch.zeros(1, 3, 12, 12, dtype=torch.float64), shrink=2.0, ramp=10)
    lr, momentum = 0.1, 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    mu = 2.0 * 2 * (1 / 10) / 10 / (lr / (1 - momentum))
    wanted = torch.autograd.grad(huber(model, nncs, nncs.pull.cut, mu), [c.module.weight for c in nncs.choices], allow_unused=True)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = [choice.module.weight.detach().clone() for choice in nncs.choices]
    nncs.step(optimizer)
    moved = 0
    for choice, old, gradient in zip(nncs.choices, before, wanted, strict=True):
        step = (old - choice.module.weight.detach()) / lr
        expected = torch.zeros_like(step) if gradient is None else gradient
        moved += int(gradient is not None)
        # The cut is held in float32; a coefficient sums at most 49 terms.
        bound = (torch.finfo(torch.float32).eps + 64 * EPS / lr) * (mu + 1) * float(old.abs().max()) * 49
        assert (step - expected).abs().max() <= bound, choice.name
    assert moved == len([choice for choice in nncs.choices if choice.transform])


def test_step_one_concentrates_energy_in_what_will_be_kept() -> None:
    def left_after(shrink: float) -> float:
        model = seeded(Residual).train()
        nncs = NNCS(model, Budget(flops=0.6), EXAMPLE.float(), shrink=shrink, ramp=60, refresh=20)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        for x, y in data(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x.float()), y).backward()
            nncs.step(optimizer)
        before = float(sum(c.module.weight.detach().square().sum() for c in nncs.choices))
        nncs.mask()
        return 1 - float(sum(c.module.weight.detach().square().sum() for c in nncs.choices)) / before

    assert left_after(3.0) < 0.5 * left_after(0.0)


def test_phases_are_guarded() -> None:
    model = seeded(Residual)
    nncs = NNCS(model, Budget(flops=0.5), EXAMPLE.float())
    with pytest.raises(Error, match=r"NNCS\.finish: expected masks"):
        nncs.finish()
    nncs.mask()
    with pytest.raises(Error, match=r"NNCS\.mask: expected one call"):
        nncs.mask()
    report = nncs.finish()
    assert 0.5 <= report.flops_reduction < 0.55


def test_finish_refuses_weight_that_cannot_be_projected() -> None:
    model = seeded(Residual)
    nncs = NNCS(model, Budget(flops=0.5), EXAMPLE.float())
    nncs.mask()
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(Error, match=r"weight of conv2: expected masked-out coefficients below 1e-06 of the largest, got nan"):
        nncs.finish()


def test_impossible_budget_is_refused_at_once() -> None:
    with pytest.raises(Error, match="ask for less or mask more layers"):
        NNCS(seeded(Residual), Budget(flops=0.99), EXAMPLE.float())


def test_settings_are_checked() -> None:
    with pytest.raises(Error, match="NNCS: expected ramp >= 1, got ramp 0"):
        NNCS(seeded(Residual), Budget(flops=0.5), EXAMPLE.float(), ramp=0)


def scaled_run(scale: float | None, overflow_at: int | None = None) -> NNCS:
    """Eight steps, the mask after four, with a scaler or without; at one step the gradients may overflow."""
    model = seeded(Residual, 5).double().train()
    nncs = NNCS(model, Budget(flops=0.5), EXAMPLE, ramp=4, score="fisher")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    for step, (x, y) in enumerate(data(8)):
        if step == 4:
            nncs.mask(optimizer)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        (loss if scaler is None else scaler.scale(loss)).backward()
        if step == overflow_at:
            model.conv2.weight.grad[0, 0, 0, 0] = float("inf")
        nncs.step(optimizer, scaler)
        if scaler is not None:
            scaler.update()
    nncs.finish()
    return nncs


def test_a_scaler_changes_nothing() -> None:
    plain, scaled = scaled_run(None), scaled_run(1024.0)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(scaled.model.state_dict()[name], value, rtol=1e-12, atol=1e-14)
    assert scaled.steps == 8


@pytest.mark.parametrize("at", [1, 6])
def test_a_step_that_overflows_is_left_out(at: int) -> None:
    nncs = scaled_run(1024.0, overflow_at=at)
    assert nncs.steps == 7
    assert all(torch.isfinite(value).all() for value in nncs.model.state_dict().values())
    assert all(torch.isfinite(value).all() for value in nncs.fisher.mean.values())
