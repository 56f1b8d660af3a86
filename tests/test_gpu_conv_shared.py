"""The CUDA kernel of 3x3 convolutions whose groups of filters share maps: what is packed for it, and its results against the float64
reference, with its source compiled for the CPU, and on a GPU."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from cuda_kernels import DTYPES, EPS  # noqa: E402
from gpu_dct_layers import SHAPES, compared, layer, nan_stays_where_it_is_seen, with_empty_groups  # noqa: E402
from nodes import FakeNode, normal  # noqa: E402

from cosparse.engine.gpu import forms  # noqa: E402
from cosparse.engine.gpu.fuse import Step  # noqa: E402
from cosparse.errors import UnsupportedError  # noqa: E402
from cosparse.kernels.gpu import conv_basis, conv_shared  # noqa: E402
from cosparse.kernels.gpu.conv_basis import ROWS, SCALES  # noqa: E402
from cosparse.kernels.gpu.conv_shared import BANKS, COLUMNS, ROOM, TEAMS, PackedShared  # noqa: E402
from cosparse.kernels.gpu.epilogue import Epilogue  # noqa: E402
from cosparse.kernels.gpu.groups import Groups, coefficient_groups  # noqa: E402
from cosparse.kernels.gpu.planes import Planes  # noqa: E402

EACH_TEAM = pytest.mark.parametrize("team", TEAMS)


def check(device: str, node: FakeNode, size: tuple[int, int, int], dtype: Any, team: int, **more: Any) -> np.ndarray:
    def run(groups: Groups, x: Planes, out: Planes, epilogue: Epilogue, backwards: bool) -> None:
        packed = conv_shared.pack(groups, node.attrs["channels"], dtype, device, team)
        conv_shared.launch(packed, x, out, epilogue, backwards)

    return compared(device, node, size, dtype, run, **more)


def unpacked(packed: PackedShared, filters: int) -> np.ndarray:
    """The coefficients [filters, channels x 9] that the kernel multiplies, found as it finds them: a step's maps by their slots, and what
    lies there by the lists of channels."""
    slots = packed.slots.numpy().view(np.uint16).astype(int)
    operands = packed.weights.float().numpy().reshape(-1, packed.team, 8, 2, 8, 8)
    weights = operands.transpose(0, 1, 3, 5, 2, 4).reshape(-1, packed.team, COLUMNS, ROWS)
    starts = packed.starts.numpy()
    matrix = np.zeros((len(starts) * packed.team * ROWS, packed.channels * 9))
    for t, c in np.ndindex(len(starts), packed.chunks):
        laid: dict[int, int] = {packed.slots_of_chunk: -1}
        for channel, word in packed.visited[t, c].tolist():
            wanted = [m for m in range(9) if word >> 16 + m & 1]
            places = {(word & 0xFFFF) + at: channel * 9 + m for at, m in enumerate(wanted)}
            assert not places.keys() & laid.keys(), "two maps in one slot"
            laid |= places
        assert max(laid) == packed.slots_of_chunk
        assert 0 <= starts[t, c + 1] - starts[t, c] <= packed.steps_of_chunk
        for step, g in np.ndindex(starts[t, c + 1] - starts[t, c], packed.team):
            at = starts[t, c] + step
            maps = np.array([laid[slot] for slot in slots[at, g]])
            assert (weights[at, g][maps < 0] == 0).all()
            first = (t * packed.team + g) * ROWS
            np.add.at(matrix[first : first + ROWS].T, maps, weights[at, g])
    assert (matrix[filters:] == 0).all()
    return matrix[:filters]


@EACH_TEAM
@pytest.mark.parametrize("density", [0.0, 0.02, 0.2, 1.0])
def test_what_is_packed_is_the_layer(density: float, team: int) -> None:
    for filters, channels in ((1, 1), (64, 17), (130, 40), (300, 33)):
        groups = coefficient_groups(layer(filters, channels, density=density), ROWS)
        packed = conv_shared.pack(groups, channels, torch.float16, "cpu", team)
        scale = np.tile(np.outer(SCALES, SCALES).reshape(9), channels)
        want = torch.from_numpy((groups.dense() * scale).astype(np.float32)).half().double().numpy()
        assert np.array_equal(unpacked(packed, filters), want)


@EACH_TEAM
def test_steps_are_full_and_their_maps_lie_in_different_banks(team: int) -> None:
    """Of random masks, which no order of channels suits."""
    rng = np.random.default_rng(0)
    count = round(0.2 * 256 * 9)
    columns = [np.sort(rng.choice(256 * 9, count, replace=False)) for _ in range(4)]
    values = normal(rng, 4 * count, 64).astype(np.float32)
    groups = Groups(64, 256, 256 * 9, np.arange(5) * count, np.concatenate(columns).astype(np.int32), values)
    packed = conv_shared.pack(groups, 256, torch.float16, "cpu", team)
    sets = packed.slots.numpy().view(np.uint16).astype(int).reshape(-1, BANKS)
    assert len(sets) * BANKS <= 1.12 * 4 * count
    reads = [np.bincount(np.unique(slots) % BANKS).max() for slots in sets]
    assert np.mean(reads) < 1.5
    chunk = packed.steps_of_chunk * team * COLUMNS * (2 * ROWS + 2) + (packed.slots_of_chunk + 1) * (1024 // team + 16)
    assert chunk <= ROOM


@pytest.mark.parametrize("dtype", DTYPES)
@EACH_TEAM
def test_every_team(on_host: str, team: int, dtype: Any) -> None:
    check(on_host, layer(130, 17), (2, 9, 8), dtype, team, residual=True, act="relu")
    check(on_host, layer(65, 33, density=0.6, extras=()), (3, 7, 7), dtype, team)
    check(on_host, layer(256, 20), (1, 6, 10), dtype, team)


SIZES = [*SHAPES, (1, 5, 64), (2, 3, 28), (20, 4, 4), (70, 2, 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size(on_host: str, size: tuple[int, int, int]) -> None:
    """Two teams with both dtypes, each with another layer from size to size."""
    layers = [(1, 1), (63, 3), (64, 17), (65, 3)]
    for i, (team, dtype) in enumerate(product((TEAMS[0], TEAMS[2]), EPS), SIZES.index(size)):
        check(on_host, layer(*layers[i % len(layers)], density=0.5), size, dtype, team, act="relu", residual=True)


def test_blocks_take_one_tile_after_the_other(on_host: str) -> None:
    """The emulation has two processors, as many blocks as fit them, and these layers more tiles, each of one chunk or of several."""
    check(on_host, layer(300, 40, density=0.2), (2, 14, 14), torch.float16, TEAMS[2])
    check(on_host, layer(150, 24), (2, 15, 28), torch.float16, TEAMS[1])
    check(on_host, layer(64, 40, density=0.05), (7, 14, 14), torch.float16, TEAMS[0], residual=True)
    check(on_host, layer(64, 5, density=0.3), (3, 14, 14), torch.float16, TEAMS[2])


def test_rows_too_wide_for_shared_memory(on_host: str) -> None:
    check(on_host, layer(8, 16, density=0.2), (1, 2, 401), torch.float16, TEAMS[0])
    with pytest.raises(UnsupportedError, match="too wide"):
        check(on_host, layer(8, 16, density=0.2), (1, 1, 4001), torch.float16, TEAMS[0])


@pytest.mark.parametrize("team", TEAMS[::2])
def test_groups_without_columns(on_host: str, team: int) -> None:
    check(on_host, with_empty_groups(), (2, 5, 6), torch.float16, team, residual=True)
    check(on_host, layer(130, 9, density=0.0), (2, 5, 6), torch.float16, team)


@EACH_TEAM
def test_dense_layers_and_scales(on_host: str, team: int) -> None:
    check(on_host, layer(70, 13, block=0, extras=("bias", "scale")), (1, 8, 8), torch.bfloat16, team)


@pytest.mark.parametrize(("act", "alpha", "beta"), [("relu", 0, 0), ("clip", 0, 6), ("clip", -1.5, 2.5)])
def test_activations(on_host: str, act: str, alpha: float, beta: float) -> None:
    for team in (TEAMS[0], TEAMS[2]):
        check(on_host, layer(65, 7), (2, 6, 7), torch.float16, team, residual=True, act=act, alpha=alpha, beta=beta)


def test_other_images_and_far_pixels_do_not_matter(on_host: str) -> None:
    for size, team in (((3, 5, 5), TEAMS[0]), ((3, 6, 6), TEAMS[2]), ((3, 7, 7), TEAMS[1]), ((3, 8, 8), TEAMS[2])):
        nan_stays_where_it_is_seen(lambda node, size, x, v=team: check(on_host, node, size, torch.float16, v, x=x), size)  # type: ignore[misc]


def test_what_is_refused(on_host: str) -> None:
    groups = coefficient_groups(layer(64, 8), 64)
    packed = conv_shared.pack(groups, 8, torch.float16, "cpu", 1)
    x, out = Planes.empty((1, 8, 4, 4), torch.float16, "cpu"), Planes.empty((1, 64, 4, 4), torch.float16, "cpu")

    def launch(x: Planes = x, out: Planes = out, epilogue: Epilogue = Epilogue(), team: int = 1) -> None:  # noqa: B008
        conv_shared.launch(replace(packed, team=team), x, out, epilogue)

    launch()
    with pytest.raises(UnsupportedError, match="gelu"):
        launch(epilogue=Epilogue(act="gelu"))
    with pytest.raises(UnsupportedError, match="8 planes of torch"):
        launch(x=Planes.empty((1, 7, 4, 4), torch.float16, "cpu"))
    with pytest.raises(UnsupportedError, match="bias"):
        launch(epilogue=Epilogue(bias=torch.zeros(63)))
    for name in ("weights", "slots", "visited"):  # the copy engine would fault
        tensor = getattr(packed, name)
        moved = torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape)
        with pytest.raises(UnsupportedError, match="16 bytes"):
            conv_shared.launch(replace(packed, **{name: moved}), x, out, Epilogue())
    for team in (3, 8, -1):
        with pytest.raises(UnsupportedError, match="no kernel was compiled"):
            launch(team=team)
    with pytest.raises(UnsupportedError, match="groups of 64"):
        conv_shared.pack(coefficient_groups(layer(64, 8), 32), 8, torch.float16, "cpu", 1)
    with pytest.raises(UnsupportedError, match="float32"):
        conv_shared.pack(groups, 8, torch.float32, "cpu", 1)
    assert COLUMNS == 2 * BANKS


def test_what_the_planner_measures(on_host: str) -> None:
    """Maps are shared where there are several groups of filters and blocks for all processors; compiled kernels in every tile."""

    def named(filters: int, pixels: int) -> set[str]:
        step = Step(layer(filters, 8, block=64), ("x",), "y")
        return {form.name for form in forms.forms(step, torch.float16, torch.device(on_host)) if forms.fits(form, pixels, 8, 8)}

    shared = {filters: {name for name in named(filters, 1 << 14) if name.startswith("shared")} for filters in (64, 65, 128, 129, 512)}
    assert shared == {64: set(), 65: {"shared128/256px"}, 128: {"shared128/256px"}, 129: {"shared256/128px"}, 512: {"shared256/128px"}}
    assert not {name for name in named(512, 1 << 13) if name.startswith("shared")}
    basis = {f"basis64/{variant.name}" for variant in conv_basis.VARIANTS}
    assert basis <= named(64, 4096)
    assert basis <= named(64, 1 << 20)
    assert not basis & named(64, 4095)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@EACH_TEAM
def test_on_a_gpu(on_gpu: str, team: int, dtype: Any) -> None:
    for size in (*SHAPES, (5, 28, 28), (2, 56, 56), (1, 30, 57), (9, 8, 8), (40, 4, 4)):
        check(on_gpu, layer(130, 33), size, dtype, team, residual=True, act="relu")
    check(on_gpu, layer(256, 64), (3, 23, 18), dtype, team, act="clip", beta=6.0)
    check(on_gpu, layer(512, 512, density=0.2), (2, 14, 14), dtype, team, residual=True)
    check(on_gpu, layer(256, 256, density=0.2), (130, 14, 14), dtype, team)
