"""Activations, arithmetic, affine, layer_norm and softmax against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from nodes import node, normal

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels.activation import KINDS
from cosparse.kernels.reference import run_node

TORCH = {
    "relu": (0, 0, F.relu),
    "clip": (-0.5, 6, lambda x: x.clamp(-0.5, 6)),
    "leaky_relu": (0.1, 0, lambda x: F.leaky_relu(x, 0.1)),
    "elu": (1.3, 0, lambda x: F.elu(x, 1.3)),
    "sigmoid": (0, 0, torch.sigmoid),
    "silu": (0, 0, F.silu),
    "tanh": (0, 0, torch.tanh),
    "gelu": (0, 0, F.gelu),
    "gelu_tanh": (0, 0, lambda x: F.gelu(x, approximate="tanh")),
    "hardswish": (0, 0, F.hardswish),
    "hardsigmoid": (0, 0, F.hardsigmoid),
    "softplus": (0, 0, F.softplus),
    "mish": (0, 0, F.mish),
    "sqrt": (0, 0, torch.sqrt),
    "abs": (0, 0, torch.abs),
    "exp": (0, 0, torch.exp),
    "log": (0, 0, torch.log),
    "pow": (0.7, 0, lambda x: x**0.7),
}
AWKWARD = np.array([0, -0.0, 1e-300, -1e-300, 3, -3, 20, 20.5, -20.5, 88, -88, 750, -750, 1e30, -1e30])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_every_activation_kind_is_tested() -> None:
    assert set(TORCH) == set(KINDS)


@pytest.mark.parametrize("kind", TORCH)
def test_activation(kind: str, rng: np.random.Generator) -> None:
    alpha, beta, by_torch = TORCH[kind]
    x = np.concatenate([rng.normal(size=64) * 4, AWKWARD]).reshape(1, -1)
    want = by_torch(torch.from_numpy(x)).numpy()
    got = run_node(node("activation", kind=kind, alpha=alpha, beta=beta), x)
    # The error of each is a few roundings of a number no larger than 1 + |x|.
    for column in range(x.shape[1]):
        assert_close(got[:, column], want[:, column], terms=4, scale=1 + abs(x[0, column]))


@pytest.mark.parametrize("kind", TORCH)
def test_activation_hands_nan_on_and_meets_infinity(kind: str) -> None:
    alpha, beta, by_torch = TORCH[kind]
    x = np.array([[np.nan, np.inf]])
    got = run_node(node("activation", kind=kind, alpha=alpha, beta=beta), x)
    assert_close(got, by_torch(torch.from_numpy(x)).numpy(), terms=1, scale=1)


def test_unknown_activation_names_the_kinds() -> None:
    with pytest.raises(UnsupportedError, match=r"node a_activation.*relu, clip.*mish.*, got 'swiglu'"):
        run_node(node("activation", kind="swiglu", alpha=0, beta=0), np.zeros((1, 1)))


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (3, 5)], ids=["rank4", "rank2"])
def test_prelu_and_affine(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, scale, shift = rng.normal(size=shape), normal(rng, 5), normal(rng, 5)
    want = F.prelu(torch.from_numpy(x), torch.from_numpy(scale).double()).numpy()
    assert_close(run_node(node("prelu", {"slope": scale}), x), want, terms=1, scale=20)
    zero, one = torch.zeros(5).double(), torch.ones(5).double()
    want = F.batch_norm(torch.from_numpy(x), zero, one, torch.from_numpy(scale).double(), torch.from_numpy(shift).double(), eps=0).numpy()
    assert_close(run_node(node("affine", {"scale": scale, "shift": shift}), x), want, terms=2, scale=20)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3, 4, 5), (2, 3, 4, 5)), ((2, 3, 4, 5), (2, 3, 1, 1)), ((2, 3, 1, 5), (1, 1, 4, 5)), ((2, 7), (2, 7)), ((2, 7), (1, 1))],
    ids=str,
)
def test_arithmetic(op: str, a: tuple[int, ...], b: tuple[int, ...], rng: np.random.Generator) -> None:
    x, y = rng.normal(size=a), rng.normal(size=b)
    want = getattr(torch, op)(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    assert_close(run_node(node(op), x, y), want, terms=0, scale=1)


@pytest.mark.parametrize(("a", "b"), [((2, 3, 4, 5), (2, 2, 4, 5)), ((2, 3, 4, 5), (2, 5)), ((3, 4), (2, 4))], ids=str)
def test_arithmetic_refuses_what_does_not_broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"node a_add \(add\): expected two inputs whose sizes are equal or 1, got \("):
        run_node(node("add"), np.zeros(a), np.zeros(b))


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (3, 5), (1, 5, 1, 1)], ids=str)
def test_layer_norm(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, scale, shift = rng.normal(size=shape) + 100, normal(rng, 5), normal(rng, 5)
    last = torch.from_numpy(x).movedim(1, -1)
    want = F.layer_norm(last, (5,), torch.from_numpy(scale).double(), torch.from_numpy(shift).double(), 1e-6).movedim(-1, 1).numpy()
    # Numbers of size 100 lose 100 eps in the difference to their mean; dividing by the deviation magnifies that.
    magnify = 104 / float(x.std(axis=1).min())
    assert_close(run_node(node("layer_norm", {"scale": scale, "shift": shift}, eps=1e-6), x), want, terms=3 * 5, scale=magnify * 4)


def test_layer_norm_of_a_constant_is_the_shift() -> None:
    tensors = {"scale": np.full(4, 3, np.float32), "shift": np.arange(4, dtype=np.float32)}
    got = run_node(node("layer_norm", tensors, eps=1e-6), np.full((2, 4, 1, 3), 0.5))
    assert_close(got, np.broadcast_to(np.arange(4.0)[:, None, None], (2, 4, 1, 3)), terms=1, scale=4)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (3, 5), (2, 1, 2, 2)], ids=str)
@pytest.mark.parametrize("magnitude", [1, 1000])
def test_softmax(shape: tuple[int, ...], magnitude: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=shape) * magnitude
    want = F.softmax(torch.from_numpy(x), 1).numpy()
    assert_close(run_node(node("softmax", axis=1), x), want, terms=2 * shape[1], scale=1)


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (3, 12), (1, 6, 1, 2)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(shape: tuple[int, ...], groups: int, rng: np.random.Generator) -> None:
    x, scale, shift = rng.normal(size=shape), normal(rng, shape[1]), normal(rng, shape[1])
    want = F.group_norm(torch.from_numpy(x), groups, torch.from_numpy(scale).double(), torch.from_numpy(shift).double(), 1e-3).numpy()
    magnify = 4 / max(float(x.reshape(len(x), groups, -1).std(axis=2).min()), 1e-3**0.5)
    got = run_node(node("group_norm", {"scale": scale, "shift": shift}, groups=groups, eps=1e-3), x)
    assert_close(got, want, terms=3 * x[0].size, scale=4 * magnify)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (3, 5), (2, 1, 2, 2)], ids=str)
@pytest.mark.parametrize("magnitude", [1, 1000])
def test_log_softmax(shape: tuple[int, ...], magnitude: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=shape) * magnitude
    want = F.log_softmax(torch.from_numpy(x), 1).numpy()
    assert_close(run_node(node("log_softmax", axis=1), x), want, terms=2 * shape[1], scale=10 * magnitude)


@pytest.mark.parametrize(("op", "roles"), [("prelu", ["slope"]), ("affine", ["scale", "shift"]), ("layer_norm", ["scale", "shift"])])
def test_per_channel_tensors_must_fit(op: str, roles: list[str]) -> None:
    with pytest.raises(ShapeError, match=r"expected 5 channels, got \(2, 1, 3, 3\)"):
        run_node(node(op, {role: np.ones(5, np.float32) for role in roles}, eps=1e-5), np.zeros((2, 1, 3, 3)))
