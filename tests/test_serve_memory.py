"""Memory that models may take: at load, and for a request's size."""

from __future__ import annotations

from pathlib import Path

import pytest
from serve_parts import images, serving, write


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("memory") / "small.cosparse")


def test_a_model_that_needs_more_memory_than_models_may(file: Path) -> None:
    with serving(file, model_bytes=1000) as server:
        (row,) = server.ask("POST", "/v2/repository/index")[1]
        assert row["state"] == "UNAVAILABLE"
        assert "small.cosparse" not in row["reason"]
        assert "at most 1000 bytes (max_memory), got" in row["reason"]


def test_a_size_that_needs_more_memory_than_models_may(file: Path) -> None:
    with serving(file, model_bytes=100_000, max_batch=1, max_scale=1024.0) as server:
        status, got, headers = server.infer(images(1, shape=(3, 128, 128)))
        assert (status, headers["retry-after"]) == (503, "2")
        assert got["error"].startswith("network 'small': expected activations of at most 100000 bytes (max_memory), got ")
        assert server.infer(images(1))[0] == 200
        assert server.metric('cosparse_request_failures_total{model="small",reason="memory_full"}') == 1
