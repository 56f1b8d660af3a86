"""The CUDA kernel of 3x3 convolutions in the DCT's domain against the float64 reference: its source compiled for the CPU, and on a GPU."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from cuda_kernels import DTYPES, EPS  # noqa: E402
from gpu_dct_layers import SHAPES, compared, layer, nan_stays_where_it_is_seen, with_empty_groups  # noqa: E402
from nodes import FakeNode, conv  # noqa: E402

from cosparse.errors import Error, UnsupportedError  # noqa: E402
from cosparse.kernels.gpu import conv_basis, cuda_library  # noqa: E402
from cosparse.kernels.gpu.conv_basis import VARIANTS, Variant  # noqa: E402
from cosparse.kernels.gpu.epilogue import Epilogue  # noqa: E402
from cosparse.kernels.gpu.groups import Groups, coefficient_groups  # noqa: E402
from cosparse.kernels.gpu.planes import Planes  # noqa: E402

EACH_VARIANT = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)


def check(device: str, node: FakeNode, size: tuple[int, int, int], dtype: Any, variant: Variant, **more: Any) -> np.ndarray:
    def run(groups: Groups, x: Planes, out: Planes, epilogue: Epilogue, backwards: bool) -> None:
        packed = conv_basis.pack(groups, node.attrs["channels"], dtype, device)
        conv_basis.launch(packed, x, out, epilogue, variant, backwards)

    return compared(device, node, size, dtype, run, **more)


@pytest.mark.parametrize("dtype", DTYPES)
@EACH_VARIANT
def test_every_variant(on_host: str, variant: Variant, dtype: Any) -> None:
    check(on_host, layer(130, 17), (2, 9, 8), dtype, variant, residual=True, act="relu")
    check(on_host, layer(65, 33, density=0.6, extras=()), (3, 7, 7), dtype, variant)
    check(on_host, layer(256, 20), (1, 6, 10), dtype, variant)
    check(on_host, layer(64, 18), (2, 13, 17), dtype, variant)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_every_size(on_host: str, size: tuple[int, int, int]) -> None:
    """Three variants with both dtypes, from another one on at each size."""
    ways = list(product((VARIANTS[0], VARIANTS[2], VARIANTS[3]), EPS))
    for i, ((filters, channels), _) in enumerate(product([(1, 1), (63, 3), (64, 17), (65, 3)], range(2)), SHAPES.index(size)):
        variant, dtype = ways[i % len(ways)]
        check(on_host, layer(filters, channels, density=0.5), size, dtype, variant, act="relu", residual=True)


def test_blocks_take_one_tile_after_the_other(on_host: str) -> None:
    """The emulation has two processors, as many blocks as fit them, and these layers more tiles."""
    check(on_host, layer(150, 24), (2, 15, 28), torch.float16, VARIANTS[2])
    check(on_host, layer(64, 40, density=0.05), (5, 14, 14), torch.float16, VARIANTS[0], residual=True)


def test_rows_too_wide_for_shared_memory(on_host: str) -> None:
    check(on_host, layer(8, 16, density=0.6), (1, 2, 2001), torch.float16, VARIANTS[3])
    with pytest.raises(UnsupportedError, match="too wide"):
        check(on_host, layer(8, 16, density=0.6), (1, 1, 4001), torch.float16, VARIANTS[3])


@pytest.mark.parametrize("variant", VARIANTS[::3], ids=lambda variant: variant.name)
def test_groups_without_columns(on_host: str, variant: Variant) -> None:
    check(on_host, with_empty_groups(), (2, 5, 6), torch.float16, variant, residual=True)
    check(on_host, layer(130, 9, density=0.0), (2, 5, 6), torch.float16, variant)


def test_dense_layers_and_scales(on_host: str) -> None:
    for variant in VARIANTS[:4]:
        check(on_host, layer(70, 13, block=0, extras=("bias", "scale")), (1, 8, 8), torch.bfloat16, variant)


@pytest.mark.parametrize(("act", "alpha", "beta"), [("relu", 0, 0), ("clip", 0, 6), ("clip", -1.5, 2.5)])
def test_activations(on_host: str, act: str, alpha: float, beta: float) -> None:
    for variant in (VARIANTS[0], VARIANTS[3]):
        check(on_host, layer(65, 7), (2, 6, 7), torch.float16, variant, residual=True, act=act, alpha=alpha, beta=beta)


def test_other_images_and_far_pixels_do_not_matter(on_host: str) -> None:
    for size, variant in (((3, 5, 5), VARIANTS[0]), ((3, 6, 6), VARIANTS[2]), ((3, 7, 7), VARIANTS[1]), ((3, 8, 8), VARIANTS[3])):
        nan_stays_where_it_is_seen(lambda node, size, x, v=variant: check(on_host, node, size, torch.float16, v, x=x), size)  # type: ignore[misc]


def test_what_is_refused(on_host: str) -> None:
    node = layer(64, 8)
    groups = coefficient_groups(node, 64)
    packed = conv_basis.pack(groups, 8, torch.float16, "cpu")
    x, out = Planes.empty((1, 8, 4, 4), torch.float16, "cpu"), Planes.empty((1, 64, 4, 4), torch.float16, "cpu")

    def launch(x: Planes = x, out: Planes = out, epilogue: Epilogue = Epilogue(), variant: Variant = VARIANTS[0]) -> None:  # noqa: B008
        conv_basis.launch(packed, x, out, epilogue, variant)

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
        launch(variant=Variant(3))
    with pytest.raises(UnsupportedError, match="no kernel was compiled"):
        launch(variant=Variant(4, 1, 9))
    with pytest.raises(UnsupportedError, match="images as those of x"):
        launch(out=Planes.empty((1, 64, 4, 5), torch.float16, "cpu"))
    with pytest.raises(UnsupportedError, match="a multiple of 64 apart"):
        launch(x=Planes(torch.zeros(8, 72, dtype=torch.float16), (1, 8, 4, 4)))
    with pytest.raises(UnsupportedError, match="groups of 64"):
        conv_basis.pack(coefficient_groups(node, 32), 8, torch.float16, "cpu")
    with pytest.raises(UnsupportedError, match="float32"):
        conv_basis.pack(groups, 8, torch.float32, "cpu")


def test_which_nodes_are_supported() -> None:
    assert conv_basis.supports(layer(8, 4)) == ""
    assert "3x3" in conv_basis.supports(conv(np.random.default_rng(0), 8, 4, (1, 3), transform="dct"))
    assert "grouped" in conv_basis.supports(layer(8, 4, groups=2))
    assert "identity" in conv_basis.supports(layer(8, 4, transform="identity"))
    for window in ({"stride": (2, 2)}, {"dilation": (1, 2)}, {"pad": (1, 1, 0, 1)}):
        assert "other than 1" in conv_basis.supports(layer(8, 4, **window))
    node = layer(8, 4)
    assert "transformed" in conv_basis.supports(replace(node, attrs=node.attrs | {"channels_tile": 4, "channels_transform": "walsh"}))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COSPARSE_CUDA_LIBRARY", str(tmp_path / "none.so"))
    fine, why = cuda_library.available()
    assert not fine
    assert "none.so" in why
    with pytest.raises(Error, match="none"):
        cuda_library.library()


def test_a_library_of_other_sources_is_refused(on_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_library, "INTERFACE", cuda_library.INTERFACE + 1)
    cuda_library._load.cache_clear()
    fine, why = cuda_library.available()
    cuda_library._load.cache_clear()
    assert not fine
    assert "interface" in why


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@EACH_VARIANT
def test_on_a_gpu(on_gpu: str, variant: Variant, dtype: Any) -> None:
    for size in (*SHAPES, (5, 28, 28), (2, 56, 56), (1, 30, 57)):
        check(on_gpu, layer(130, 33), size, dtype, variant, residual=True, act="relu")
    check(on_gpu, layer(256, 64), (3, 23, 18), dtype, variant, act="clip", beta=6.0)
    check(on_gpu, layer(64, 512, density=0.2), (2, 14, 14), dtype, variant, residual=True)
