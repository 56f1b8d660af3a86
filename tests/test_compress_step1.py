"""Step 1: the pull is the penalty's gradient for every recovery and measurement, honest in scale, and a resumed run ends to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from cosparse.compress import NNCS, Budget, Step1, masks, transforms
from cosparse.compress.layers import Choice
from cosparse.compress.loop import Progress
from cosparse.compress.measurement import draw, of_coefficients, split
from cosparse.compress.pull import in_blocks
from cosparse.compress.recovery import CONVEX, GREEDY
from cosparse.compress.step1 import SCHEDULES
from cosparse.errors import Error
from tests.compress_nets import Awkward, Residual, imported, seeded

EPS = torch.finfo(torch.float64).eps
GREY = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
COLOUR = torch.zeros(1, 3, 12, 12, dtype=torch.float64)
MEASURED = ("gaussian", "bernoulli")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products of small matrices: waking a second thread takes longer than each of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def still(model: nn.Module) -> None:
    """Gradients of a loss that does not care."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)


def moved(nncs: NNCS, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """How far one step without a loss takes every layer, minus its direction: old weight - new weight."""
    still(nncs.model)
    before = {c.name: c.module.weight.detach().clone() for c in nncs.choices}
    nncs.step(optimizer)
    return {c.name: before[c.name] - c.module.weight.detach() for c in nncs.choices}


def pulled(nncs: NNCS) -> list[Choice]:
    return [choice for choice in nncs.choices if choice.transform is not None]


def penalty(nncs: NNCS, name: str, weight: torch.Tensor) -> torch.Tensor:
    """1/2 ||Phi (w - Psi^T s)||^2 of a layer, by Phi itself and not by A, s as the pull carries it."""
    choice = next(c for c in nncs.choices if c.name == name)
    step1, taps = nncs.step1, weight[0, 0].numel()
    drawn = draw(step1.measurement, weight.shape[1], taps, share=step1.share, seed=nncs.seed, name=name, limit=step1.segment)
    s = nncs.pull.recovered[name].movedim(0, -2).flatten(-2)[..., : drawn.tiling.columns].flatten(0, 1)[: weight.shape[0]]
    error = weight - transforms.inverse(s.reshape(weight.shape), choice.transform)
    if drawn.matrix is None:
        return error.square().sum() / 2
    parts = zip(error.flatten(1).split(drawn.tiling.width, 1), drawn.matrix.split(drawn.tiling.width, 1), strict=True)
    return sum((e @ phi.T).square().sum() for e, phi in parts) / 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("recovery", "measurement"), [("ista", "gaussian"), ("fista", "bernoulli"), ("iht", "identity"), ("omp", "gaussian")]
)
def test_the_pull_is_the_gradient_of_the_penalty(recovery: str, measurement: str, optimizer: str) -> None:
    """Layers of awkward shapes, several segments, the last narrower; against autograd."""
    model = seeded(Awkward).double().train()
    step1 = Step1(recovery, measurement, segment=60 if measurement != "identity" else 512, iterations=3)
    nncs = NNCS(model, Budget(flops=0.6), COLOUR, step1=step1, ramp=100)
    lr, momentum = 0.1, 0.5
    if optimizer == "sgd":
        # A step of SGD after zero gradients is lr times the pull; the rate that the pull counts on includes what momentum adds later.
        chosen: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        scale = 2 * 1 / 100 / 100 * (1 - momentum)
    else:
        chosen = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        scale = 2 * 1 / 100 / 100
    weights = {c.name: c.module.weight.detach().clone().requires_grad_() for c in nncs.choices}
    steps = moved(nncs, chosen)
    gradients = 0
    for choice in nncs.choices:
        if choice not in pulled(nncs):
            assert not steps[choice.name].any()
            continue
        weight = weights[choice.name]
        (wanted,) = torch.autograd.grad(penalty(nncs, choice.name, weight), weight)
        gradients += int(wanted.abs().max() > 0)  # Greedy methods give all of a layer back that the budget keeps whole.
        # Sums of at most 60 + 30 terms of which each may be as large as the largest weight times a column of length 1.
        bound = 4 * 90 * EPS * float(weight.detach().abs().max()) + 2 * EPS * float(weight.detach().abs().max()) / scale
        assert (steps[choice.name] / scale - wanted).abs().max() <= bound, choice.name
    assert gradients >= 3


def test_the_closed_form_is_where_the_recoveries_meet() -> None:
    """With Phi = I one iteration is exact, so the pull is the closed form's."""

    def after(step1: Step1) -> dict[str, torch.Tensor]:
        model = seeded(Awkward).double().train()
        return moved(NNCS(model, Budget(flops=0.6), COLOUR, step1=step1, ramp=100), torch.optim.SGD(model.parameters(), lr=0.1))

    closed = after(Step1())
    for recovery, iterations in (("ista", 1), ("fista", 1), ("admm", 200)):
        other = after(Step1(recovery, iterations=iterations, tolerance=0.0))
        for name, step in closed.items():
            assert (other[name] - step).abs().max() <= 64 * EPS * 2, name


@pytest.mark.parametrize("recovery", [*CONVEX, *GREEDY])
@pytest.mark.parametrize("measurement", ["identity", *MEASURED])
def test_what_is_recovered_is_sparse_as_the_budget_is(recovery: str, measurement: str) -> None:
    model = seeded(Residual).double().train()
    nncs = NNCS(model, Budget(density=0.1), GREY, step1=Step1(recovery, measurement, iterations=60))
    kept = {c.name: (masks.block_energy(c.module.weight, "dct", 8).sqrt() >= nncs.pull.cut[c.name][:, None]).sum() for c in pulled(nncs)}
    moved(nncs, torch.optim.SGD(model.parameters(), lr=0.1))
    assert sorted(nncs.pull.recovered) == sorted(kept) == ["conv2", "conv3"]
    for name, s in nncs.pull.recovered.items():
        used, every = int((s != 0).any(2).sum()), s[:, :, 0].numel()
        if recovery in GREEDY:
            assert used == kept[name]
        elif measurement == "identity":
            assert used in (kept[name], kept[name] - 1)  # What lies on the threshold itself becomes zero.
        else:
            # Half as many measurements of weights that are noise: other columns interfere and lift some over the threshold.
            assert 0 < used < 0.5 * every


@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_dropped_block_shrinks_by_the_foldings_that_were_asked_for(schedule: str, optimizer: str) -> None:
    """Whatever the learning rate, the schedule and the optimizer: no loss, so only the pull moves the weights."""
    ramp, shrink, tail = 200, 1.5, 0 if optimizer == "adamw" else 40
    model = seeded(Residual).double().train()
    nncs = NNCS(model, Budget(flops=0.6), GREY, step1=Step1(schedule=schedule), shrink=shrink, ramp=ramp, refresh=10**6)
    if optimizer == "sgd":
        chosen: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.07, momentum=0.8)
    else:
        chosen = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    small = masks.block_energy(model.conv2.weight, "dct", 8).sqrt() < 0.5 * nncs.pull.cut["conv2"].double()[:, None]
    assert small.any()
    before = masks.block_energy(model.conv2.weight, "dct", 8)[small]
    for _ in range(ramp):
        still(model)
        nncs.step(chosen)
    for _ in range(tail):  # What momentum still holds.
        still(model)
        chosen.step()
    foldings = -(masks.block_energy(model.conv2.weight, "dct", 8)[small] / before).log() / 2
    # A step of share a shrinks by -log(1 - a) = a + a^2/2 + ...: at most the peak more, relatively. Momentum b holds pulls on a block that
    # was larger, b / (1 - b) steps ago in the mean, as many peaks again.
    lag = 0.8 / (1 - 0.8) if optimizer == "sgd" else 0.0
    peak = SCHEDULES[schedule](1.0) * shrink / ramp
    assert (foldings - shrink).abs().max() <= shrink * peak * (1 + lag)


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_schedules_have_mean_one_and_stay_at_their_end(schedule: str) -> None:
    step1 = Step1(schedule=schedule, shrink=1.0)
    strengths = [step1.strength(step, 10000) for step in range(10000)]
    # The sum is the rectangle rule at right ends, off by at most (last - first) / steps.
    assert abs(sum(strengths) - 1) <= 1.01 * (strengths[-1] - strengths[0]) + 1e-9
    assert strengths == sorted(strengths)
    assert step1.strength(10**6, 10000) == strengths[-1]


def test_a_random_measurement_pulls_at_the_same_scale() -> None:
    """E A^T A = I: along a random direction with s = 0 the step is that of the identity, in the mean over many."""
    model = seeded(Residual).double().train()
    nncs = NNCS(model, Budget(flops=0.6), GREY, step1=Step1("ista", "gaussian"), ramp=100)
    moved(nncs, torch.optim.SGD(model.parameters(), lr=0.1))
    weight = model.conv3.weight.detach()
    matrix = of_coefficients(draw("gaussian", 16, 9, share=0.5, seed=0, name="conv3"), "dct", weight)
    x = torch.randn((1, 1, 4000, 144), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    along = (x * (x @ matrix[0].T @ matrix[0])).sum(-1) / x.square().sum(-1)
    # The mean is trace(A^T A) / n, whose standard deviation is sqrt(2 / (m n)) = 0.014, plus that of 4000 directions; five of them.
    assert abs(float(along.mean()) - 1) <= 5 * (math.sqrt(2 / (72 * 144)) + 0.01)


def test_between_refreshes_the_recovered_stays() -> None:
    model = seeded(Residual).double().train()
    nncs = NNCS(model, Budget(flops=0.6), GREY, step1=Step1("fista", "gaussian", refresh=3), ramp=50)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for _ in range(5):
        moved(nncs, optimizer)
        seen.append(nncs.pull.recovered["conv2"].clone())
    same = [torch.equal(a, b) for a, b in pairwise(seen)]
    assert same == [True, True, False, True]


def test_frozen_layers_and_no_shrinking_are_left_alone() -> None:
    for step1 in (Step1(), Step1("ista", "gaussian")):
        model = seeded(Residual).double().train()
        nncs = NNCS(model, Budget(flops=0.6), GREY, step1=step1)
        steps = moved(nncs, torch.optim.AdamW([model.conv3.weight], lr=0.01, weight_decay=0.0))
        assert not steps["conv2"].any()
        assert steps["conv3"].any()
        plain = NNCS(seeded(Residual).double(), Budget(flops=0.6), GREY, step1=step1, shrink=0.0)
        assert not any(s.any() for s in moved(plain, torch.optim.SGD(plain.model.parameters(), lr=0.1)).values())


def test_sgd_that_climbs_gets_the_pull_on_the_weights() -> None:
    model = seeded(Residual).double().train()
    nncs = NNCS(model, Budget(flops=0.6), GREY, ramp=10)
    norm = float(model.conv2.weight.detach().norm())
    moved(nncs, torch.optim.SGD(model.parameters(), lr=0.1, maximize=True))
    assert float(model.conv2.weight.detach().norm()) < norm


def batches(count: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn((8, 1, 8, 8), generator=generator), torch.randint(0, 10, (8,), generator=generator)) for _ in range(count)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("recovery", "measurement"), [("closed", "identity"), ("fista", "gaussian"), ("omp", "bernoulli")])
def test_resumed_run_ends_with_the_same_weights(recovery: str, measurement: str, optimizer: str, tmp_path: Path) -> None:
    """Interrupted inside step 1, between two refreshes: cuts and recovered coefficients are those of the checkpoint."""
    options = {"lr": 0.01, "warmup": 3, "optimizer": optimizer}

    def fresh() -> NNCS:
        return imported(NNCS(seeded(Residual), Budget(flops=0.6), GREY.float(), step1=Step1(recovery, measurement, refresh=7)))

    def interrupt(at: Progress) -> None:
        if at.epoch == 1 and at.step == 5:
            raise KeyboardInterrupt

    whole, path = fresh(), tmp_path / "run.safetensors"
    whole.fit(batches(), None, (2, 1), **options)
    with pytest.raises(KeyboardInterrupt):
        fresh().fit(batches(), None, (2, 1), save_to=path, progress=interrupt, **options)
    resumed = fresh()
    resumed.fit(batches(), None, (2, 1), save_to=path, resume=True, **options)
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not resumed.pull.recovered


def test_settings_are_plain_and_whole() -> None:
    step1 = Step1("fista", "bernoulli", 0.4, "cosine", iterations=7, tolerance=0.0, segment=90)
    settings = NNCS(seeded(Residual), Budget(flops=0.5), GREY.float(), step1=step1, shrink=2.0, refresh=5).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings == {
        "budget": {"flops": 0.5}, "transform": "dct", "block": 8, "nncs_seed": 0,
        "recovery": "fista", "measurement": "bernoulli", "measure_share": 0.4, "schedule": "cosine",
        "shrink": 2.0, "iterations": 7, "tolerance": 0.0, "refresh": 5, "segment": 90,
        "score": "energy", "group": False, "regrow": None,
    }  # fmt: skip


def test_split_is_by_the_signals_of_the_layer() -> None:
    """A signal is a filter's columns: the filters of a block row are its channels."""
    weight = torch.arange(3 * 4.0).reshape(3, 4, 1, 1)
    blocks = in_blocks(weight, 2)
    assert split(blocks, draw("gaussian", 4, 1, share=1, seed=0, limit=2).tiling).tolist() == [
        [[[0, 1], [4, 5]], [[8, 9], [0, 0]]],
        [[[2, 3], [6, 7]], [[10, 11], [0, 0]]],
    ]


REFUSED = {
    "recovery": ({"recovery": "lasso"}, r"Step1\.recovery: expected one of closed, ista, fista, admm, omp, iht, got 'lasso'"),
    "measurement": ({"measurement": "fourier"}, r"Step1\.measurement: expected one of identity, gaussian, bernoulli, got 'fourier'"),
    "schedule": ({"schedule": "step"}, r"Step1\.schedule: expected one of ramp, constant, cosine, geometric, got 'step'"),
    "closed": ({"measurement": "gaussian"}, r"Step1\.recovery: expected one of ista, .*, as the closed form is that of the identity"),
    "share of the identity": ({"measure_share": 0.5}, r"Step1\.measure_share: expected a random measurement, got identity"),
    "share": (
        {"recovery": "ista", "measurement": "gaussian", "measure_share": 1.5},
        r"Step1\.measure_share: expected a number in \(0, 1\], got 1\.5",
    ),
    "shrink": ({"shrink": -1.0}, r"Step1: expected shrink >= 0, refresh >= 1, got shrink -1\.0"),
    "refresh": ({"refresh": 0}, r"Step1: expected shrink >= 0, refresh >= 1, got .*refresh 0"),
    "iterations": ({"iterations": 0}, r"Step1: expected iterations >= 1, tolerance >= 0, segment >= 1, got iterations 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_settings_are_refused(case: str) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(Error, match=message):
        Step1(**settings)
    if case in ("shrink", "refresh"):
        with pytest.raises(Error, match=message):
            NNCS(seeded(Residual), Budget(flops=0.5), GREY.float(), **settings)


def test_a_ramp_that_would_overshoot_is_refused() -> None:
    model = seeded(Residual).double().train()
    nncs = NNCS(model, Budget(flops=0.6), GREY, step1=Step1("ista", "gaussian"), ramp=2)
    before = model.conv2.weight.detach().clone()
    with pytest.raises(Error, match=r"NNCS\.ramp: expected at least \d+ steps of step 1, as conv2 is measured with .* got 2; train longer"):
        moved(nncs, torch.optim.SGD(model.parameters(), lr=0.1))
    assert torch.equal(model.conv2.weight.detach(), before)
