"""The command line: exit statuses, one clear sentence for bad input, JSON that is alone on standard output."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import command as process

import cosparse
from cosparse.cli import COMMANDS, run
from cosparse.cli.output import emit, table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `--data` wants it: 40 random 8x8 images of 10 classes in each split."""
    import io

    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        encoded = []
        for _ in range(40):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PNG")
            encoded.append(file.getvalue())
        table = pyarrow.table({"image": encoded, "label": np.arange(40, dtype=np.int8) % 10})
        pyarrow.parquet.write_table(table, folder / f"random_{split}.parquet")
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> object:
    """JSON that the command gives for `--json -`; nothing else may stand on standard output."""
    status = run([*map(str, arguments), "--json", "-"])
    out, err = capsys.readouterr()
    assert status == 0, err
    return json.loads(out)


def test_help_lists_every_command_and_is_quick() -> None:
    # Its processor's time, the least of three: other work on the machine must not decide this.
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = process("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in COMMANDS)
    assert min(took) < 1.0


def test_help_needs_no_torch() -> None:
    program = "import sys; from cosparse.cli import run; run(['--help']); sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_no_arguments_is_help_and_version_is_the_version(capsys) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cosparse {cosparse.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command, capsys) -> None:
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"cosparse {command}" in out
    assert "--json" in out


def test_inspect(path, capsys) -> None:
    result = answer(capsys, "inspect", path, "--plan")
    assert result["name"] == "small"
    assert result["bytes"] == path.stat().st_size
    assert result["inputs"] == [{"name": "x", "shape": [None, 3, 8, 8], "dtype": "float32"}]
    layers = {layer["name"]: layer for layer in result["layers"]}
    assert layers["conv1"]["density"] < 0.7
    assert layers["stem"]["density"] == 1.0
    assert layers["linear"]["parameters"] == 170
    assert result["provenance"] == {"method": "random"}
    assert {row["name"] for row in result["plan"]} >= {"stem", "conv1", "linear"}
    assert run(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "16->16 3x3 dct 8x1" in out
    assert "x [N, 3, 8, 8] -> linear" in out


def test_inspect_needs_no_torch(path) -> None:
    program = f"import sys; from cosparse.cli import run; assert run(['inspect', {str(path)!r}]) == 0; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_run_gives_the_engines_answer(path, tmp_path, capsys) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8), np.float32)
    np.save(tmp_path / "x.npy", x)
    result = answer(capsys, "run", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "y", "--threads", 1)
    assert result["outputs"][0]["shape"] == [3, 10]
    np.testing.assert_array_equal(np.load(tmp_path / "y"), cosparse.load(path, threads=1)(x))


def test_run_converts_other_numbers(path, tmp_path) -> None:
    x = np.arange(3 * 64, dtype=np.int64).reshape(1, 3, 8, 8)[:, :, ::-1]
    np.save(tmp_path / "x.npy", x)
    assert run(["run", str(path), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), cosparse.load(path)(np.ascontiguousarray(x, np.float32)))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_run_and_eval_in_a_short_dtype(dtype, path, data, tmp_path, capsys) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8), np.float32)
    np.save(tmp_path / "x.npy", x)
    samples = x if dtype == "int8" else None
    options = ["--dtype", dtype, "--threads", 1] + (["--calibration", tmp_path / "x.npy"] if dtype == "int8" else [])
    answer(capsys, "run", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "y", *options)
    engine = cosparse.load(path, threads=1, dtype=dtype, calibration=samples)
    np.testing.assert_array_equal(np.load(tmp_path / "y"), engine(x))
    assert not np.array_equal(engine(x), cosparse.load(path, threads=1)(x))
    result = answer(capsys, "eval", path, "--data", data, *options)
    assert (result["dtype"], result["count"]) == (dtype, 40)


def test_eval_counts_what_the_engine_says(path, data, capsys) -> None:
    result = answer(capsys, "eval", path, "--data", data, "--batch", 7)
    assert result["count"] == 40
    assert 0 <= result["top1"] <= result["top5"] <= 100
    limited = answer(capsys, "eval", path, "--data", data, "--limit", 10)
    assert limited["count"] == 10


def test_eval_bar(path, data, capsys) -> None:
    assert run(["eval", str(path), "--data", str(data), "--min-top1", "0"]) == 0
    assert run(["eval", str(path), "--data", str(data), "--min-top1", "100"]) == 1
    out, err = capsys.readouterr()
    assert "is below --min-top1 100" in err
    assert "engine" in out


def test_bench_writes_what_it_shows(path, tmp_path, capsys) -> None:
    out = tmp_path / "bench.json"
    options = ["--threads", "1", "--seconds", "0.05", "--against", "onnxruntime"]
    assert run(["bench", str(path), *options, "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["peers"]) == {"onnxruntime"}
    shown = capsys.readouterr().out
    assert "onnxruntime" in shown
    assert "conv1" in shown


def test_bench_sweeps(path, capsys) -> None:
    quick = ["--threads", "1", "--seconds", "0.05", "--against", "none", "--no-layers", "--no-cold-start"]
    results = answer(capsys, "bench", path, "--batch", "1,3", *quick)
    assert [result["batch"] for result in results] == [1, 3]


def test_bench_strict_fails_on_a_slower_engine(path, monkeypatch, capsys) -> None:
    from cosparse.bench import harness

    real = harness.bench
    monkeypatch.setattr(harness, "bench", lambda *arguments: real(*arguments) | {"speedup": 0.5, "fastest_peer": "onnxruntime"})
    options = ["--threads", "1", "--seconds", "0.05", "--against", "onnxruntime", "--no-layers", "--no-cold-start"]
    assert run(["bench", str(path), *options, "--strict"]) == 1
    assert "2.00 times slower than onnxruntime" in capsys.readouterr().err
    assert run(["bench", str(path), *options]) == 0


def test_a_table_without_a_terminal_is_as_wide_as_what_it_holds(capsys) -> None:
    names, why = [f"stage.{i}." + "block." * 12 + "conv" for i in range(2)], "sparse it would take at least 12.5 us, dense 11.9; " * 3
    emit({}, None, table("layers", ("layer", *"abcdefgh", "why"), [(name, *range(8), why) for name in names], left=("layer", "why")))
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == "layers"
    assert [row.split()[0] for row in rows] == names
    assert all(row.endswith(why.rstrip()) for row in rows)
    assert not any(line.endswith(" ") for line in (title, head, *rows))


def test_doctor(capsys) -> None:
    findings = {(f["group"], f["thing"]): f for f in answer(capsys, "doctor")}
    assert findings["engine", "extension"]["found"].startswith("_C")
    assert findings["engine", "kernels for scalar"]["found"]
    assert findings["packages", "numpy"]["found"] == np.__version__
    assert all(f["found"] or f["next_step"] for f in findings.values())


def test_doctor_names_the_way_to_what_is_missing(monkeypatch, capsys) -> None:
    from cosparse.bench import environment

    monkeypatch.setattr(environment, "version", lambda package: None)
    findings = {f["thing"]: f for f in answer(capsys, "doctor")}
    assert findings["onnxruntime"]["found"] == ""
    assert findings["onnxruntime"]["next_step"] == "pip install 'cosparse[bench]'"


BAD_INPUT = {
    "unknown command": (["frobnicate"], r"command: expected one of demo, compress, .*, got 'frobnicate'"),
    "unknown option": (["inspect", "{path}", "--colour"], "--colour"),
    "missing argument": (["inspect"], "(?i)missing argument"),
    "missing file": (["inspect", "{folder}/none.cosparse"], "none.cosparse"),
    "a folder": (["inspect", "{folder}"], "a directory"),
    "no artifact": (["inspect", "{script}"], "net.py"),
    "bad number": (["bench", "{path}", "--batch", "two"], "--batch: expected whole numbers of at least 1, .* got 'two'"),
    "bad threads": (["run", "{path}", "--input", "a", "--output", "b", "--threads", "0"], "threads"),
    "bad isa": (["run", "{path}", "--input", "a", "--output", "b", "--isa", "mmx"], "mmx"),
    "a batch that no value holds": (["bench", "{path}", "--batch", "3000000000"], "--batch: expected whole numbers of at most 2147483647"),
    "a batch beyond every integer": (["bench", "{path}", "--batch", "9" * 23], "--batch: expected whole numbers of at most 2147483647"),
    "more memory than there is": (["bench", "{path}", "--batch", "2000000000", "--against", "none"], "out of memory: Unable to allocate"),
    "more memory than torch finds": (["export", "zoo:resnet20", "--classes", "2147483647", "--out", "m"], "out of memory: can't allocate"),
    "time without end": (["bench", "{path}", "--seconds", "inf"], "--seconds"),
    "threads beyond every integer": (
        ["run", "{path}", "--input", "a", "--output", "b", "--threads", "9" * 23],
        "a whole number",
    ),
    "training threads": (["demo", "--threads", "9" * 11], "--threads"),
    "a seed below 0": (["export", "zoo:resnet20", "--density", "0.5", "--seed", "-1", "--out", "m"], "--seed"),
    "a size that no value holds": (["export", "zoo:resnet20", "--size", "3,65536,65536", "--out", "m"], "--size: expected a product of at"),
    "a bar that is no number": (
        ["eval", "{path}", "--data", ".", "--min-top1", "nan"],
        "--min-top1: expected per cent, .* got nan",
    ),
    "stray bytes": (["run", "{path}", "--input", "a", "--output", "b", "--dtype", "\udcff"], r"dtype: .*got \\udcff"),
    "a table without end": (
        ["export", "zoo:resnet20", "--impose-latency", "0.5", "--latency-table", "/dev/zero", "--out", "m"],
        "--latency-table: expected a file, got /dev/zero, a device or pipe",
    ),
    "weights that are a folder": (
        ["export", "zoo:resnet20", "--weights", "d.safetensors", "--out", "m"],
        r"--weights: expected a file, got d\.safetensors, a folder",
    ),
    "an array that is a device": (
        ["run", "{path}", "--input", "/dev/zero", "--output", "y"],
        "expected a file, got /dev/zero, a device or pipe",
    ),
    "a token of other bytes": (["serve", "{path}", "--token-file", "{bytes}"], "a token of printable ASCII"),
    "unknown peer": (
        ["bench", "{path}", "--against", "tensorrt"],
        r"expected one of torch, torch\.compile, onnxruntime, openvino, got",
    ),
    "no array": (["run", "{path}", "--input", "{script}", "--output", "y.npy"], r"net\.py: expected an array file \(\.npy\)"),
    "too few inputs": (["run", "{path}", "--input", "a", "--input", "b", "--output", "y"], r"--input: expected 1 files \(x\), got 2"),
    "wrong shape": (["run", "{path}", "--input", "{array}", "--output", "y.npy"], "x"),
    "unknown zoo network": (["export", "zoo:alexnet2", "--out", "m.cosparse"], "zoo network 'alexnet2': expected one of"),
    "no spec": (["export", "alexnet", "--out", "m.cosparse"], r"network: expected zoo:NAME or path/file\.py:factory, got 'alexnet'"),
    "no such script": (["export", "{folder}/no.py:make", "--out", "m.cosparse"], r"no\.py: expected a Python file, got nothing there"),
    "no such factory": (["export", "{script}:nothing", "--out", "m.cosparse"], "expected a function that returns a torch module"),
    "factory that fails": (["export", "{script}:fails", "--out", "m.cosparse"], "expected to run, got RuntimeError: no luck"),
    "factory without example": (["export", "{script}:alone", "--out", "m.cosparse"], r"give --size C,H,W"),
    "factory of something else": (["export", "{script}:seven", "--out", "m.cosparse"], "expected a torch module, .* got int"),
    "bad size": (["export", "{script}:alone", "--size", "3,8", "--out", "m.cosparse"], "--size: expected 3 whole numbers"),
    "pickled weights": (["export", "zoo:resnet20", "--weights", "w.pth", "--out", "m.cosparse"], r"w\.pth: expected a \.safetensors file"),
    "no folder for the result": (
        ["inspect", "{path}", "--json", "{folder}/none/x.json"],
        "--json: expected an existing folder .*none, got none",
    ),
    "share": (["export", "zoo:resnet20", "--impose-flops", "60", "--out", "m.cosparse"], r"--impose-flops: expected a share in \[0, 1\)"),
    "method": (
        ["compress", "zoo:resnet20", "--data", ".", "--out", "m", "--method", "x"],
        "--method: expected one of nncs, .*got 'x'",
    ),
    "no budget": (
        ["compress", "{script}:whole", "--data", ".", "--out", "m"],
        "Budget: expected flops, params, latency or density, got none",
    ),
    "epochs": (["compress", "zoo:resnet20", "--data", ".", "--out", "m", "--epochs", "3"], "--epochs: expected 2 whole numbers"),
    "int8 without calibration": (["eval", "{path}", "--data", ".", "--dtype", "int8"], r"--calibration: expected images .* got none; give"),
    "calibration of float32": (
        ["run", "{path}", "--input", "{array}", "--output", "y", "--calibration", "{array}"],
        "--calibration: expected --dtype int8, got --dtype float32; leave it out",
    ),
    "bad dtype": (["eval", "{path}", "--data", ".", "--dtype", "int4"], "dtype: expected float32, bfloat16 or int8, got int4"),
    "no data": (["eval", "{path}", "--data", "{folder}/nowhere"], "nowhere"),
    "no split": (
        ["eval", "{path}", "--data", "{folder}"],
        r"one \*_test\.parquet .*, or val/CLASS/\*, got bytes, d\.safetensors, net\.py, wrong\.npy",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_sentence_and_status_2(arguments, message, path, tmp_path, capsys, monkeypatch) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    script = tmp_path / "net.py"
    script.write_text(
        "import torch\ndef fails(): raise RuntimeError('no luck')\ndef alone(): return torch.nn.Conv2d(3, 4, 3)\ndef seven(): return 7\n"
        "def whole(): return torch.nn.Sequential(alone(), torch.nn.Flatten()), torch.zeros(1, 3, 8, 8), {'scale': 1.0}\n"
    )
    np.save(tmp_path / "wrong.npy", np.zeros((1, 5, 8, 8), np.float32))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "d.safetensors").mkdir()
    places = {"path": path, "bytes": tmp_path / "bytes", "folder": tmp_path, "script": script, "array": tmp_path / "wrong.npy"}
    status = run([argument.format(**places) for argument in arguments])
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert err.startswith("cosparse: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert re.search(message, err), err


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def shaped(shape: str) -> bytes:
    return npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }")


NO_ARRAYS = {
    "a zip file, almost": b"PK\x03\x04" + bytes(100),
    "more than memory": shaped("(1000000000000000,)"),
    "beyond every integer": shaped("(99999999999999999999999999,)"),
    "deep": npy("(" * 1000),
    "cut": shaped("(4, 3, 8, 8)"),
    "empty": b"",
}


@pytest.mark.parametrize("content", NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_a_file_that_is_no_array_is_one_sentence(content, path, tmp_path, capsys) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    assert run(["run", str(path), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"cosparse: {tmp_path / 'x.npy'}: expected an array file (.npy) of numbers, got ")
    assert err.count("\n") == 1


def test_status_2_from_a_process_too(tmp_path) -> None:
    done = process("inspect", tmp_path / "none.cosparse")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("cosparse: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_typer_or_rich_there_is_one_sentence(package) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; sys.argv = ['cosparse', 'doctor']; import cosparse.__main__ as m; m.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"cosparse: the command line needs {package}; next step: pip install 'cosparse[cli]'\n"


def test_a_missing_extra_is_named(path, data) -> None:
    arguments = ["eval", str(path), "--data", str(data)]
    program = f"import sys; sys.modules['pyarrow'] = None; from cosparse.cli import run; sys.exit(run({arguments}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'cosparse[compress]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_ours_is_not_hidden(monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("cosparse.engine.artifact.read", broken)
    with pytest.raises(AssertionError, match="a bug"):
        run(["inspect", "x.cosparse"])


def test_interruption_is_130(monkeypatch, capsys) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cosparse.engine.artifact.read", interrupted)
    assert run(["inspect", "x.cosparse"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_bench_of_a_network_says_how_it_becomes_an_artifact(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "zoo:resnet20"]) == 2
    assert "NETWORK: expected an artifact, got zoo:resnet20; export it first (cosparse export zoo:resnet20" in capsys.readouterr().err


def test_export_counts_the_filters_that_it_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch_pruning")
    found = answer(capsys, "export", "zoo:resnet20", "--impose-filters", "0.3", "--out", tmp_path / "net.cosparse")
    removed = found["filters_removed"]
    assert 0.65 < removed["flops_after"] / removed["flops_before"] < 0.7
    assert removed["flops_after"] == found["flops_dense"]
