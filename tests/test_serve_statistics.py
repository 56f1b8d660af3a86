"""Model configuration and statistics, as tritonclient asks for them over both protocols, and as perf_analyzer reads them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serve_parts import Running, images, serving, until, write

from cosparse.engine.serve.batcher import Ran
from cosparse.engine.serve.counts import Counts

HTTP = pytest.importorskip("tritonclient.http")
GRPC = pytest.importorskip("tritonclient.grpc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("statistics")
    write(folder / "small.cosparse")
    write(folder / "other" / "3" / "model.cosparse", seed=1)
    with serving(folder, max_batch=8, max_delay=0.25) as running:
        yield running


def test_the_configuration(server: Running) -> None:
    over_http = HTTP.InferenceServerClient(f"127.0.0.1:{server.port}").get_model_config("small")
    assert over_http == {
        "name": "small",
        "platform": "cosparse",
        "backend": "cosparse",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3, 8, 8]}],
        "output": [{"name": "linear", "data_type": "TYPE_FP32", "dims": [10]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 250_000},
    }
    over_grpc = GRPC.InferenceServerClient(server.grpc).get_model_config("small", as_json=True)["config"]
    assert over_grpc["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", "8", "8"]}]  # protobuf's JSON writes them so
    assert over_grpc["max_batch_size"] == 8


def test_the_statistics(server: Running) -> None:
    client = HTTP.InferenceServerClient(f"127.0.0.1:{server.port}")

    def found() -> dict[str, int]:
        (row,) = client.get_inference_statistics("small", "1")["model_stats"]
        stats = row["inference_stats"]
        kinds = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        return {"images": row["inference_count"], "runs": row["execution_count"], **{kind: stats[kind]["count"] for kind in kinds}}

    before = found()
    assert server.infer(images(3))[0] == 200
    assert server.infer(images(1, shape=(3, 9, 9)))[0] == 400
    until(lambda: found()["success"] == before["success"] + 1 and found()["runs"] == before["runs"] + 1)  # counted behind the answer
    after = found()
    assert {key: after[key] - before[key] for key in after} == {
        "images": 3, "runs": 1, "success": 1, "fail": 1, "queue": 1, "compute_input": 1, "compute_infer": 1, "compute_output": 1
    }  # fmt: skip
    everything = client.get_inference_statistics()["model_stats"]
    assert [(row["name"], row["version"]) for row in everything] == [("other", "3"), ("small", "1")]
    grpc = GRPC.InferenceServerClient(server.grpc)
    assert grpc.get_inference_statistics("small").model_stats[0].inference_count == after["images"]
    assert len(grpc.get_inference_statistics().model_stats) == 2
    assert server.ask("GET", "/v2/models/nobody/stats")[0] == server.ask("GET", "/v2/models/nobody/config")[0] == 404


def test_a_batch_counts_once_for_each_request_in_it() -> None:
    counts = Counts()
    counts.ran(Ran(5, (0.25, 0.5), 2.0))
    counts.ran(Ran(5, (0.0,), 1.0))
    counts.ran(Ran(1, (0.0,), 0.5))
    found = counts.rows()
    assert (found["inference_count"], found["execution_count"]) == (11, 3)
    assert found["inference_stats"]["queue"] == {"count": 4, "ns": 750_000_000}
    assert found["inference_stats"]["compute_infer"] == {"count": 4, "ns": 5_500_000_000}
    assert [(row["batch_size"], row["compute_infer"]) for row in found["batch_stats"]] == [
        (1, {"count": 1, "ns": 500_000_000}),
        (5, {"count": 2, "ns": 3_000_000_000}),
    ]
