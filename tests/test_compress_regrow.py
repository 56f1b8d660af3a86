"""Moving masks: as many coefficients and no more channels than before, the best of what is allowed, resumable."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import nn

from cosparse.compress import NNCS, Budget, Regrow, count, masks
from cosparse.compress.regrow import exchange, regrow_masks
from tests.compress_nets import Residual, seeded

EXAMPLE = torch.zeros(1, 1, 8, 8)


def channels(keep: torch.Tensor, taps: int) -> int:
    return int(keep.any(0).reshape(-1, taps).any(1).sum())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("partial", [False, True])
def test_counts_stay_and_no_channel_is_added(seed: int, partial: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, taps = 4, 3
    keep = torch.rand(rows, 8 * taps, generator=generator) < 0.15
    energy = torch.rand(keep.shape, generator=generator, dtype=torch.float64) * keep
    pull = torch.rand(keep.shape, generator=generator, dtype=torch.float64)
    classes = (slice(0, 3), slice(3, 4)) if partial else (slice(0, 4),)
    before = keep.clone()
    after = exchange(keep, energy, pull, taps, 0.6, classes)
    assert torch.equal(keep, before)
    assert all(int(after[c].sum()) == int(keep[c].sum()) for c in classes)
    assert channels(after, taps) <= channels(keep, taps)
    assert torch.equal(after, exchange(keep, energy, pull, taps, 0.6, classes))
    for rows_of in classes:
        dropped = energy[rows_of][keep[rows_of] & ~after[rows_of]]
        stayed = energy[rows_of][keep[rows_of] & after[rows_of]].sort().values
        assert len(dropped) <= int(0.6 * int(keep[rows_of].sum()))
        assert not len(dropped) or not len(stayed) or dropped.max() <= stayed[-1]


@pytest.mark.parametrize("seed", range(6))
def test_within_open_channels_the_largest_pulls_win(seed: int) -> None:
    """Where every channel is open anyway, what is taken is the best choice of all: brute force."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.tensor([[True, False, True, False], [True, False, False, False]])  # 2 channels of 2 taps
    energy = torch.tensor([[3.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    pull = torch.rand(2, 4, generator=generator)
    after = exchange(keep, energy, pull, 2, 0.4, (slice(0, 2),))
    stay = {0, 2}  # the block of energy 1 goes, both channels stay open
    best = max(combinations(sorted(set(range(8)) - stay), 1), key=lambda take: float(pull.flatten()[list(take)].sum()))
    assert set(after.flatten().nonzero().flatten().tolist()) == stay | set(best)


def test_a_channel_opens_only_where_one_has_closed() -> None:
    keep = torch.tensor([[True, True, False, False], [True, False, False, False]])  # channels of 1 tap; 0 and 1 open
    energy = torch.tensor([[3.0, 0.5, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    pull = torch.tensor([[0.0, 0.1, 5.0, 4.0], [0.0, 0.2, 6.0, 7.0]])
    after = exchange(keep, energy, pull, 1, 0.4, (slice(0, 2),))
    assert after.tolist() == [[True, False, False, False], [True, False, False, True]]  # 1 closed, 3 opened
    still = exchange(keep.index_fill(1, torch.tensor([1]), True), energy, pull, 1, 0.25, (slice(0, 2),))
    assert channels(still, 1) == 2
    assert not still[:, 2:].any()  # channel 1 stays open through the other row, so none may open


def batches(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn((8, 1, 8, 8), generator=generator), torch.randint(0, 10, (8,), generator=generator)) for _ in range(steps)]


def test_step_two_moves_masks_and_keeps_every_count() -> None:
    nncs = NNCS(seeded(Residual).train(), Budget(flops=0.6, params=0.6), EXAMPLE, block=4, regrow=Regrow(every=2, until=1.0, steps=20))
    report = nncs.mask()
    keep = {name: mask.keep.clone() for name, _, mask in masks.masked(nncs.model)}
    optimizer = torch.optim.SGD(nncs.model.parameters(), lr=0.05, momentum=0.9)
    for x, y in batches(9):
        optimizer.zero_grad()
        nn.functional.cross_entropy(nncs.model(x), y).backward()
        nncs.step(optimizer)
        for _, module, mask in masks.masked(nncs.model):
            assert masks.residue(module) < 1e-6
            momentum = optimizer.state[module.weight]["momentum_buffer"]
            assert float((momentum - masks.keep_only(momentum, mask)).abs().max()) <= 1e-6 * float(momentum.abs().max())
    after = nncs.finish()
    assert any(not torch.equal(mask.keep, keep[name]) for name, _, mask in masks.masked(nncs.model))
    assert [layer.params for layer in after.layers] == [layer.params for layer in report.layers]
    assert after.flops <= report.flops


def test_schedule() -> None:
    regrow = Regrow(every=10, until=0.5, share=0.4, steps=100)
    assert [step for step in range(100) if regrow.share_at(step)] == [10, 20, 30, 40]
    shares = [regrow.share_at(step) for step in (10, 20, 30, 40)]
    assert shares == sorted(shares, reverse=True)
    assert regrow.share_at(20) + regrow.share_at(30) == pytest.approx(0.4)


def test_resumed_run_ends_with_the_same_masks(tmp_path: Path) -> None:
    options = {"lr": 0.05, "warmup": 1, "distill": 0.0}

    def fresh() -> NNCS:
        return NNCS(seeded(Residual), Budget(flops=0.6), EXAMPLE, block=4, regrow=Regrow(every=2, until=1.0))

    def interrupt(at) -> None:
        if at.epoch == 2:
            raise KeyboardInterrupt

    whole, path = fresh(), tmp_path / "run.safetensors"
    whole.fit(batches(3), None, (1, 2), **options)
    assert whole.regrow is not None
    assert whole.regrow.steps == 6
    with pytest.raises(KeyboardInterrupt):
        fresh().fit(batches(3), None, (1, 2), save_to=path, progress=interrupt, **options)
    resumed = fresh()
    resumed.fit(batches(3), None, (1, 2), save_to=path, resume=True, **options)
    ends = [{name: mask.keep for name, _, mask in masks.masked(nncs.model)} for nncs in (whole, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


@pytest.mark.parametrize("wrong", [{"every": 0}, {"until": 0.0}, {"until": 1.5}, {"share": 1.0}, {"share": float("nan")}, {"steps": 0}])
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match="Regrow: expected every >= 1, 0 < until <= 1, 0 < share < 1"):
        Regrow(**wrong)


def test_gradients_that_are_not_finite_are_named_and_missing_ones_change_nothing() -> None:
    model = seeded(Residual)
    nncs = NNCS(model, Budget(flops=0.6), EXAMPLE)
    nncs.mask()
    assert regrow_masks(model, 0.5) == 0
    model.conv3.weight.grad = torch.full_like(model.conv3.weight, float("nan"))
    with pytest.raises(ValueError, match="gradient of conv3: expected finite values"):
        regrow_masks(model, 0.5)
    assert count(model, EXAMPLE).flops == nncs.finish().flops
