"""`cosparse bench --roofline`: a picture that stands alone, in its own colours, from a bench result; and when there is none."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench_results import EVIL, bench_result
from small_net import small_net

from cosparse.bench.plots import roofline
from cosparse.bench.svg import INK, printable
from cosparse.cli import run
from cosparse.cli.bench_outputs import picture
from cosparse.engine import artifact
from cosparse.errors import Error

SVG = "{http://www.w3.org/2000/svg}"


def test_a_picture_is_a_file_of_its_own() -> None:
    text = picture(bench_result(threads=1))
    root = ElementTree.fromstring(text)  # so names in it are escaped
    assert root.tag == f"{SVG}svg"
    assert not [node.tag for node in root.iter() if not node.tag.startswith(SVG)]
    shown = [node.text for node in root.iter(f"{SVG}text")]
    assert shown[0] == f"net {EVIL}, batch 1, 1 thread, float32".replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert {"sparse", "GFLOP/s on what is executed"} <= set(shown)
    assert float(root.attrib["width"]) / float(root.attrib["height"]) == pytest.approx(_ratio(root.attrib["viewBox"]), rel=1e-3)


def _ratio(box: str) -> float:
    _, _, width, height = map(float, box.split())
    return width / height


def test_it_brings_every_colour_that_it_uses_for_light_and_dark() -> None:
    text = picture(bench_result())
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert {"--card", "--ink", "--muted", "--s0"} <= used
    assert used <= set(re.findall(r"(--\w+):", light))
    assert used <= set(re.findall(r"(--\w+):", dark.split("</style>")[0]))
    assert not [token for token in INK.values() if token in text]
    assert "font-family" in light + dark
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing is loaded from elsewhere


def test_the_same_result_is_the_same_file() -> None:
    assert picture(bench_result()) == picture(bench_result())
    assert "xmlns" not in (roofline(bench_result(), "r") or "xmlns")  # in a page the picture stays an element


def test_without_limits_or_layers_there_is_no_picture() -> None:
    result = bench_result()
    result["machine"] = result["machine"] | {"peak_gflops": None}
    for bare in (result, bench_result(layers=[])):
        with pytest.raises(Error, match="--roofline: expected layers and limits of the machine, got none measured; install torch"):
            picture(bare)


def test_bench_writes_it(tmp_path: Path) -> None:
    artifact.write(tmp_path / "small.cosparse", small_net())
    options = ["--threads", "1", "--seconds", "0.05", "--against", "none", "--no-cold-start", "--roofline", str(tmp_path / "roof.svg")]
    assert run(["bench", str(tmp_path / "small.cosparse"), *options]) == 0
    assert printable("small, batch 1") in (tmp_path / "roof.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["net.cosparse", "--batch", "1,2"], "expected one batch size and one thread count, with layers, got 2 of them"),
        (["net.cosparse", "--no-layers"], "with layers, got --no-layers"),
        (["zoo:resnet20", "--density", "0.5"], "with layers, got --density"),
        (["net.cosparse", "--roofline", "no/such/r.svg"], "expected an existing folder no/such, got none"),
    ],
    ids=["batches", "no layers", "sweep", "no folder"],
)
def test_what_gives_no_picture_is_refused_before_measuring(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["bench", "--roofline", "r.svg", "--threads", "1", *options]) == 2
    assert message in capsys.readouterr().err
