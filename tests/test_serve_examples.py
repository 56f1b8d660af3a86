"""The examples of serving: what can run here runs, the others are read as their systems would read them."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY
from google.protobuf import text_format
from serve_parts import images, write
from tritonclient.grpc import model_config_pb2

import cosparse
from cosparse.cli import app as command_line

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write(tmp_path / "1" / "model.cosparse")
    monkeypatch.setenv("MODEL", str(path))
    return path


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classify(app: Any, file: Path) -> None:
    from fastapi.testclient import TestClient

    x = images(3)
    with TestClient(app) as client:
        answer = client.post("/classify", content=x.tobytes())
        assert answer.json() == {"classes": cosparse.load(file)(x).argmax(1).tolist()}
        for body in (b"abc", b"", b"abcd"):
            assert client.post("/classify", content=body).status_code in (400, 422)


def test_the_fastapi_application(file: Path) -> None:
    classify(load(EXAMPLES / "fastapi_app.py").app, file)


def test_the_readmes_lines_for_fastapi(file: Path, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n((?:(?!```).)*FastAPI.*?)```", readme, re.DOTALL)
    assert len(lines.splitlines()) <= 25
    script = tmp_path / "app.py"
    script.write_text(lines.replace('"resnet56.cosparse"', repr(str(file))))
    from fastapi.testclient import TestClient

    x = images(2)
    with TestClient(load(script).app) as client:
        assert client.post("/classify", json=x.tolist()).json() == cosparse.load(file)(x).argmax(1).tolist()
        assert client.post("/classify", json=[[1.0]]).status_code == 422


def test_the_ray_serve_application(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for Ray that hands on what it decorates; docs/serving.md says whether Ray itself ran it."""
    path = EXAMPLES / "ray_serve.py"
    assert len(path.read_text().splitlines()) < 100

    def deployment(**options: Any) -> Any:
        return lambda made: SimpleNamespace(bind=lambda *given: made(*given))

    def batch(**options: Any) -> Any:
        def wrap(method: Any) -> Any:
            async def alone(self: Any, image: np.ndarray) -> Any:
                return (await method(self, [image]))[0]

            return alone

        return wrap

    ray = ModuleType("ray")
    ray.serve = SimpleNamespace(deployment=deployment, batch=batch)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    import asyncio

    network, x = load(path).app, images(1)

    def asked(content: bytes) -> Any:
        async def body() -> bytes:
            return content

        return asyncio.run(network(SimpleNamespace(body=body)))

    assert asked(x.tobytes())["class"] == int(cosparse.load(file)(x).argmax())
    assert asked(b"abc").status_code == 400
    network.check_health()


def test_the_triton_model(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is read by Triton's own message, the model runs against a stand-in for the backend's utilities."""
    folder = EXAMPLES / "triton" / "resnet"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("resnet", "python", 16)
    utils = ModuleType("triton_python_backend_utils")
    utils.get_input_tensor_by_name = lambda request, name: SimpleNamespace(as_numpy=lambda: request[name])  # type: ignore[attr-defined]
    utils.Tensor = lambda name, array: (name, array)  # type: ignore[attr-defined]
    utils.TritonError = str  # type: ignore[attr-defined]
    utils.InferenceResponse = lambda tensors=None, error=None: error or dict(tensors)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    model = load(folder / "1" / "model.py").TritonPythonModel()
    config_json = json.dumps({"max_batch_size": 4, "parameters": {"threads": {"string_value": "1"}}})
    model.initialize({"model_config": config_json, "model_repository": str(file.parent.parent), "model_version": "1"})
    x = images(3)
    first, second = model.execute([{"x": x[:1]}, {"x": x[1:]}])
    np.testing.assert_allclose(np.concatenate([first["linear"], second["linear"]]), cosparse.load(file)(x), atol=1e-5)
    (refused,) = model.execute([{"x": images(1, shape=(4, 8, 8))}])
    assert "input 'x': expected 3 channels" in refused


def options() -> set[str]:
    import typer.main

    return {
        name
        for parameter in typer.main.get_command(command_line).commands["serve"].params
        for name in parameter.opts
        if name.startswith("--")
    }  # type: ignore[attr-defined]


def test_the_manifest_names_options_and_paths_that_exist() -> None:
    runtime, service = yaml.safe_load_all((EXAMPLES / "kserve.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    assert {word.partition("=")[0] for word in container["args"] if word.startswith("--")} <= options()
    probes = {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert probes == {"/v2/health/ready", "/v2/health/live"}
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    drain = sum(float(word.partition("=")[2]) for word in container["args"] if word.startswith("--drain"))
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > drain


@pytest.mark.parametrize("release", ["1.31", "1.37"])
def test_the_manifest_s_containers_are_kubernetes_own(release: str) -> None:
    """Strictly by the schema of a Pod: what KServe makes of the container, and the fields of a pod among the predictor's."""
    import kubernetes_validate

    runtime, service = yaml.safe_load_all((EXAMPLES / "kserve.yaml").read_text())
    predictor = {key: value for key, value in service["spec"]["predictor"].items() if key != "model"}
    spec = {"containers": runtime["spec"]["containers"], **predictor}
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": spec}
    kubernetes_validate.validate(pod, release, strict=True)
    spec["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(pod, release, strict=True)


def test_the_dockerfile_names_what_exists() -> None:
    text = (EXAMPLES / "Dockerfile").read_text()
    for line in re.findall(r"^(?:ENTRYPOINT|CMD|HEALTHCHECK CMD) (\[.*\])$", text, re.MULTILINE):
        assert all(word in options() for word in ast.literal_eval(line) if word.startswith("--"))
    assert "/v2/health/ready" in text
    assert "cosparse[serve]" in text


def test_the_pages_tables_are_complete() -> None:
    from cosparse.engine.serve.metrics import Metrics
    from cosparse.engine.serve.refusal import Kind

    page = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
    series = {row.name for row in Metrics().registry.collect()}
    assert series <= {name.removesuffix("_total") for name in re.findall(r"`(cosparse_\w+)`", page)}
    assert {kind.reason for kind in Kind} <= set(re.findall(r"`(\w+)`", page))
    assert options() - {"--help", "--json"} <= set(re.findall(r"`(--[\w-]+)", page))
