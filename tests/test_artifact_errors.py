"""docs/errors.md lists the reader's refusals, all of them and no others."""

import re

import pytest
from conftest import REPOSITORY
from malformed import CASES

from cosparse import _C
from cosparse.errors import ArtifactError, Error, ShapeError, UnsupportedError

FILE = "net.cosparse"


def documented():
    """Section -> patterns of the messages in its table; `…` stands for anything."""
    sections = {}
    for part in re.split(r"^#+ ", (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        if title in ("Places of results", "Calls"):  # not the reader's: tests/test_cli_files.py, tests/test_engine_calls.py
            continue
        messages = re.findall(r"^\| `(.*?)`[^|]*\|", body, re.MULTILINE)
        sections[title] = [".*".join(map(re.escape, m.split("…"))) for m in messages if "expected" in m]
    return sections


PATTERNS = documented()
# Not of the bytes but of the file system, the memory, or the sizes at run time; other tests meet them.
ELSEWHERE = ("readable file", "regular file", "64 GiB, got", "fits in memory", "bytes, got .*$", "^inputs: ", "^calibration: ")


def refusal(case):
    with pytest.raises(Error) as caught:
        _C.parse_artifact(case.to_bytes(), FILE)
    error = caught.value
    return (error.about.removeprefix(FILE).removeprefix(": ") + ": expected " + error.expected + ", got " + error.got).removeprefix(": ")


@pytest.fixture(scope="module")
def refusals():
    return {case.id: refusal(case) for case in CASES}


def test_each_refusal_is_documented(refusals):
    every = [re.compile(pattern, re.DOTALL) for patterns in PATTERNS.values() for pattern in patterns]
    assert [message for message in refusals.values() if not any(p.fullmatch(message) for p in every)] == []


def test_each_documented_refusal_happens(refusals):
    for section, patterns in PATTERNS.items():
        for pattern in patterns:
            happens = any(re.fullmatch(pattern, message, re.DOTALL) for message in refusals.values())
            assert happens or any(re.search(e, pattern.replace("\\", "")) for e in ELSEWHERE), (section, pattern)


def test_the_classes():
    assert issubclass(Error, ValueError)
    for kind in (ArtifactError, UnsupportedError, ShapeError):
        assert issubclass(kind, Error)
        error = kind("net.cosparse: tensor 'a'", "one", "two", "do this")
        assert str(error) == "net.cosparse: tensor 'a': expected one, got two; do this"
        assert (error.about, error.expected, error.got, error.next_step) == ("net.cosparse: tensor 'a'", "one", "two", "do this")
