"""The CUDA kernel of 3x3 convolutions in the DCT's domain against the float64 reference: its source compiled for the CPU, and on a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from nodes import FakeNode, conv, kept_blocks, normal  # noqa: E402

from cosparse.errors import Error, UnsupportedError  # noqa: E402
from cosparse.kernels.activation import KINDS  # noqa: E402
from cosparse.kernels.basis import conv_by_basis  # noqa: E402
from cosparse.kernels.conv import coefficients  # noqa: E402
from cosparse.kernels.gpu import conv_basis  # noqa: E402
from cosparse.kernels.gpu.conv_basis import VARIANTS, Variant  # noqa: E402
from cosparse.kernels.gpu.epilogue import Epilogue  # noqa: E402
from cosparse.kernels.gpu.groups import coefficient_groups  # noqa: E402
from cosparse.kernels.gpu.planes import Planes, stride_of  # noqa: E402
from cosparse.kernels.transform import dct_matrix  # noqa: E402
from cosparse.kernels.window import padded, taps  # noqa: E402

EPS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in EPS]
EACH_VARIANT = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)


@pytest.fixture(scope="session")
def emulation(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    made = tmp_path_factory.mktemp("cuda") / "host.so"
    flags = ["-O1", "-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-DCOSPARSE_CUDA_ON_HOST"]
    command = [compiler, *flags, "-x", "c++", str(repository / "csrc/cuda/conv_basis.cu"), "-o", str(made)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return made


@pytest.fixture
def on_host(emulation: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COSPARSE_CUDA_LIBRARY", str(emulation))
    return "cpu"


@pytest.fixture
def on_gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    fine, why = conv_basis.available()
    if not fine:
        pytest.skip(why)
    return "cuda"


def guarded(shape: tuple[int, int, int, int], dtype: Any, device: str) -> tuple[Planes, Any]:
    """Planes of NaN with NaN around them, and all of it."""
    everything = torch.full((shape[1] + 2, stride_of(shape)), torch.nan, dtype=dtype, device=device)
    return Planes(everything[1:-1], shape), everything


def magnitude(node: FakeNode, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sum over k of |S[o,k]| a[k,p], where a is a map of |x| by the absolute basis: what roundings are relative to."""
    seen = np.zeros((len(x), x.shape[1], 9, size[0] * size[1]))
    for i, j, tap in taps(padded(np.abs(x), node.attrs["pad"]), (3, 3), node.attrs["stride"], node.attrs["dilation"], size):
        seen[:, :, 3 * i + j] = tap.reshape(*x.shape[:2], -1)
    maps = np.abs(np.kron(dct_matrix(3), dct_matrix(3))) @ seen
    weights = np.abs(coefficients(node)).reshape(node.attrs["filters"], -1)
    return (weights @ maps.reshape(len(x), -1, size[0] * size[1])).reshape(len(x), -1, *size)


def check(
    device: str,
    node: FakeNode,
    size: tuple[int, int, int],
    dtype: Any,
    variant: Variant,
    *,
    residual: bool = False,
    act: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    gain: float = 1.0,
    x: np.ndarray | None = None,
    space: Any = None,
) -> np.ndarray:
    """Runs a node on [N, H, W] pixels and compares; `gain` is the activation's steepest slope. The result, float64."""
    rng = np.random.default_rng(3)
    n, h, w = size
    x = normal(rng, n, node.attrs["channels"], h, w) if x is None else x
    rounded = torch.from_numpy(x).to(dtype)
    exact = rounded.double().numpy()
    want = conv_by_basis(node, exact)
    bias = node.tensors.get("bias")
    planes, _ = guarded(tuple(exact.shape), dtype, device)
    planes.nchw.copy_(rounded)
    out, everything = guarded(want.shape, dtype, device)
    added = None
    if residual:
        added, _ = guarded(want.shape, dtype, device)
        added.nchw.copy_(torch.from_numpy(normal(rng, *want.shape)))
        want = want + added.nchw.double().cpu().numpy()
    packed = conv_basis.pack(coefficient_groups(node, 64), node.attrs["channels"], dtype, device, variant)
    bias = None if bias is None else torch.from_numpy(bias).to(device)
    conv_basis.launch(packed, node.attrs, planes, out, Epilogue(bias, added, act, alpha, beta), space)
    got = out.nchw.double().cpu().numpy()
    assert bool(torch.isnan(everything[[0, -1]]).all()), "wrote outside its planes"
    # Two roundings an axis and one of the weight, then float32 sums, which tensor cores truncate rather than round, then one of y.
    before = np.abs(want)
    want = KINDS[act](want, alpha, beta) if act != "none" else want
    terms = node.attrs["channels"] * 9 + 4
    bound = gain * ((6 * EPS[dtype] + terms * 2.0**-23) * magnitude(node, exact, want.shape[2:]) + 2.0**-22 * before)
    bound += 1.01 * EPS[dtype] * (np.abs(want) + bound) + 2.0**-24
    fine = np.isfinite(want)
    error = np.where(fine, np.abs(got - want) - bound, 0)
    worst = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), error.shape)
    assert error[worst] <= 0, f"{variant.name} at {tuple(map(int, worst))}: got {got[worst]}, wanted {want[worst]}, bound {bound[worst]}"
    return np.asarray(got)


def layer(filters: int, channels: int, *, stride: int = 1, dilation: int = 1, pad: Sequence[int] = (1,) * 4, **more: Any) -> FakeNode:
    options: dict[str, Any] = {
        "stride": (stride, stride),
        "dilation": (dilation, dilation),
        "pad": pad,
        "transform": "dct",
        "block": 8,
    } | more
    return conv(np.random.default_rng(filters), filters, channels, (3, 3), **options)


SHAPES = [
    (1, 1, 1), (3, 1, 1), (2, 1, 5), (2, 3, 1), (3, 2, 2), (1, 4, 3), (2, 7, 7), (3, 8, 8), (2, 9, 9), (1, 5, 12), (2, 6, 10), (1, 17, 19),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@EACH_VARIANT
def test_every_variant(on_host: str, variant: Variant, dtype: Any) -> None:
    check(on_host, layer(130, 17), (2, 9, 8), dtype, variant, residual=True, act="relu")
    check(on_host, layer(65, 33, density=0.6, extras=()), (3, 7, 7), dtype, variant)
    check(on_host, layer(256, 20), (1, 6, 10), dtype, variant)
    check(on_host, layer(100, 19, dilation=2, pad=(2, 2, 2, 2)), (2, 10, 12), dtype, variant)
    check(on_host, layer(64, 18, stride=2), (2, 13, 11), dtype, variant)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_every_size(on_host: str, size: tuple[int, int, int]) -> None:
    for i, (filters, channels) in enumerate([(1, 1), (63, 3), (64, 17), (65, 3)]):
        for j, variant in enumerate((VARIANTS[0], VARIANTS[3], VARIANTS[8])):
            check(on_host, layer(filters, channels, density=0.5), size, list(EPS)[(i + j) % 2], variant, act="relu", residual=True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3), (4, 4, 4, 4), (1, 0, 2, 3)], ids=str)
def test_every_window(on_host: str, pad: tuple[int, int, int, int], dilation: int, stride: int) -> None:
    for size in ((2, 9, 10), (1, 11, 9), (2, 10, 12)):
        check(on_host, layer(40, 5, stride=stride, dilation=dilation, pad=pad), size, torch.float16, VARIANTS[dilation])


@pytest.mark.parametrize(
    ("stride", "dilation"), [((1, 2), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 1)), ((1, 1), (1, 2)), ((3, 1), (1, 2))], ids=str
)
def test_directions_that_differ(on_host: str, stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    window = {"stride": stride, "dilation": dilation, "pad": (1, 1, 1, 1)}
    node = conv(np.random.default_rng(1), 20, 5, (3, 3), transform="dct", block=4, **window)  # type: ignore[arg-type]
    check(on_host, node, (2, 9, 8), torch.bfloat16, VARIANTS[1])


def test_rows_too_wide_for_shared_memory(on_host: str) -> None:
    check(on_host, layer(8, 16, density=0.6), (1, 2, 3001), torch.float16, VARIANTS[8])


@pytest.mark.parametrize("variant", VARIANTS[2::3], ids=lambda variant: variant.name)
def test_groups_without_columns(on_host: str, variant: Variant) -> None:
    rng = np.random.default_rng(5)
    keep = rng.random((25, 17 * 9)) < 0.3
    keep[8:16] = False  # the second group of 64
    keep[:, 5 * 9 : 11 * 9] = False  # channels that nobody uses
    node = layer(200, 17, density=0.0)
    check(on_host, replace(node, tensors=node.tensors | kept_blocks(rng, 200, keep, 8)), (2, 5, 6), torch.float16, variant, residual=True)
    check(on_host, layer(130, 9, density=0.0), (2, 5, 6), torch.float16, variant)


def test_dense_layers_and_scales(on_host: str) -> None:
    for variant in VARIANTS[:4]:
        check(on_host, layer(70, 13, block=0, extras=("bias", "scale")), (1, 8, 8), torch.bfloat16, variant)


@pytest.mark.parametrize(
    ("act", "alpha", "beta", "gain"),
    [
        ("relu", 0, 0, 1), ("clip", 0, 6, 1), ("clip", -1.5, 2.5, 1), ("leaky_relu", 0.1, 0, 1), ("sigmoid", 0, 0, 1), ("silu", 0, 0, 1.2),
        ("hardswish", 0, 0, 1.5), ("hardsigmoid", 0, 0, 1),
    ],
)  # fmt: skip
def test_activations(on_host: str, act: str, alpha: float, beta: float, gain: float) -> None:
    for variant in (VARIANTS[0], VARIANTS[8]):
        check(on_host, layer(65, 7), (2, 6, 7), torch.float16, variant, residual=True, act=act, alpha=alpha, beta=beta, gain=gain)


def test_other_images_and_far_pixels_do_not_matter(on_host: str) -> None:
    """NaN reaches the pixels whose windows hold it, and no other."""
    for size, variant in (((3, 5, 5), VARIANTS[0]), ((3, 6, 6), VARIANTS[3]), ((3, 8, 8), VARIANTS[8])):
        x = normal(np.random.default_rng(1), size[0], 4, *size[1:])
        x[1] = np.nan
        x[0, :, 0, 0] = np.nan
        got = check(on_host, layer(3, 4, density=1.0), size, torch.float16, variant, x=x)
        reached = np.isnan(got)
        expected = np.zeros_like(reached)
        expected[1] = expected[0, :, :2, :2] = True
        assert (reached == expected).all()


def test_what_is_refused(on_host: str) -> None:
    node = layer(64, 8)
    groups = coefficient_groups(node, 64)
    packed = conv_basis.pack(groups, 8, torch.float16, "cpu", VARIANTS[0])
    x, out = Planes.empty((1, 8, 4, 4), torch.float16, "cpu"), Planes.empty((1, 64, 4, 4), torch.float16, "cpu")

    def launch(x: Planes = x, out: Planes = out, epilogue: Epilogue = Epilogue(), packed: Any = packed) -> None:  # noqa: B008
        conv_basis.launch(packed, node.attrs, x, out, epilogue)

    launch()
    with pytest.raises(UnsupportedError, match="gelu"):
        launch(epilogue=Epilogue(act="gelu"))
    with pytest.raises(UnsupportedError, match="8 planes of torch"):
        launch(x=Planes.empty((1, 7, 4, 4), torch.float16, "cpu"))
    with pytest.raises(UnsupportedError, match="64 planes"):
        launch(out=Planes.empty((1, 64, 4, 4), torch.bfloat16, "cpu"))
    with pytest.raises(UnsupportedError, match="bias"):
        launch(epilogue=Epilogue(bias=torch.zeros(63)))
    with pytest.raises(UnsupportedError, match="no kernel was compiled"):
        launch(packed=replace(packed, variant=Variant(3, 64, 32)))
    with pytest.raises(UnsupportedError, match="a multiple of 64 apart"):
        launch(x=Planes(torch.zeros(8, 72, dtype=torch.float16), (1, 8, 4, 4)))
    with pytest.raises(UnsupportedError, match="groups of 64"):
        conv_basis.pack(coefficient_groups(node, 32), 8, torch.float16, "cpu", VARIANTS[0])
    with pytest.raises(UnsupportedError, match="float32"):
        conv_basis.pack(groups, 8, torch.float32, "cpu", VARIANTS[0])


def test_slices_share_a_workspace(on_host: str) -> None:
    """Layers of other sizes, one after the other, leave its counters at zero; a workspace too small is refused."""
    sliced = [variant for variant in VARIANTS if variant.slices > 1]
    space = torch.zeros(conv_basis.COUNTERS + 2_000_000)
    for variant in sliced:
        for filters, channels, size in ((130, 70, (1, 7, 7)), (64, 40, (1, 12, 13)), (70, 3, (2, 4, 4))):
            check(on_host, layer(filters, channels), size, torch.float16, variant, space=space, act="relu", residual=True)
            assert not bool(space[: conv_basis.COUNTERS].any())
    with pytest.raises(UnsupportedError, match="space"):
        check(on_host, layer(64, 3), (1, 4, 4), torch.float16, sliced[0], space=space[:9000])


def test_which_nodes_are_supported() -> None:
    assert conv_basis.supports(layer(8, 4)) == ""
    assert "3x3" in conv_basis.supports(conv(np.random.default_rng(0), 8, 4, (1, 3), transform="dct"))
    assert "grouped" in conv_basis.supports(layer(8, 4, groups=2))
    assert "identity" in conv_basis.supports(layer(8, 4, transform="identity"))
    node = layer(8, 4)
    assert "transformed" in conv_basis.supports(replace(node, attrs=node.attrs | {"channels_tile": 4, "channels_transform": "walsh"}))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COSPARSE_CUDA_LIBRARY", str(tmp_path / "none.so"))
    fine, why = conv_basis.available()
    assert not fine
    assert "none.so" in why
    with pytest.raises(Error, match="none"):
        conv_basis.library()


def test_a_library_of_other_sources_is_refused(on_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_basis, "INTERFACE", conv_basis.INTERFACE + 1)
    conv_basis._load.cache_clear()
    fine, why = conv_basis.available()
    conv_basis._load.cache_clear()
    assert not fine
    assert "interface" in why


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@EACH_VARIANT
def test_on_a_gpu(on_gpu: str, variant: Variant, dtype: Any) -> None:
    for size in (*SHAPES, (5, 28, 28), (2, 56, 56), (1, 30, 57)):
        check(on_gpu, layer(130, 33), size, dtype, variant, residual=True, act="relu")
    for stride, dilation, pad in ((2, 1, 1), (1, 2, 2), (1, 4, 4), (1, 3, 3), (2, 2, 0)):
        node = layer(256, 64, stride=stride, dilation=dilation, pad=(pad,) * 4)
        check(on_gpu, node, (3, 23, 18), dtype, variant, act="silu", gain=1.2)
    check(on_gpu, layer(64, 512, density=0.2), (2, 14, 14), dtype, variant, residual=True)
