"""Documentation that can be checked: links lead somewhere, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings answer to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def local_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [link for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text) if "://" not in link]


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "artifact.md", "vocabulary.md", "decisions.md"} <= {p.name for p in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in local_links(page):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_environment_variable_of_the_code_is_in_the_readme() -> None:
    folders = ("cosparse", "engine", "kernels", "compress", "bench", "csrc", "tests")
    files = [f for folder in folders for f in (REPOSITORY / folder).rglob("*") if f.suffix in (".py", ".cpp", ".h", ".inc")]
    files.append(REPOSITORY / "setup.py")
    named = {name for f in files for name in re.findall(r"""["'](COSPARSE_[A-Z]+(?:_[A-Z]+)*)["']""", f.read_text(encoding="utf-8"))}
    table = set(re.findall(r"`(COSPARSE_\w+)`", (REPOSITORY / "README.md").read_text(encoding="utf-8")))
    assert named <= table, f"not in the README's table: {sorted(named - table)}"


def test_every_make_target_of_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8"))}
    assert named
    assert named <= targets


def test_pages_name_no_machine() -> None:
    """The project speaks of itself alone: no path of somebody's disk."""
    pattern = re.compile(r"(?<![\w.])/(?:home|root|work|opt|tmp|Users|mnt)/\w+")
    assert not [f"{page.name}: {match.group(0)}" for page in PAGES for match in pattern.finditer(page.read_text(encoding="utf-8"))]


def test_the_reference_has_every_option_of_every_command() -> None:
    """With what it means; how a default is shown differs between versions of typer."""
    from cosparse.cli import COMMANDS, reference

    def rows(text: str) -> set[tuple[str, str, str]]:
        sections = re.split(r"^## cosparse (\w+)$", text, flags=re.MULTILINE)[1:]
        found = set()
        for command, section in zip(sections[::2], sections[1::2], strict=True):
            for names, meaning in re.findall(r"^\| `(--.*?)` \| (.*) \|$", section, re.MULTILINE):
                found |= {(command, name, meaning.partition(" [")[0]) for name in re.findall(r"--[a-z-]+", names)}
        return found

    written = rows((REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8"))
    assert {command for command, _, _ in written} >= set(COMMANDS) - {"doctor"}
    assert written == rows("\n".join(reference.pages())), "python -m cosparse.cli.reference > docs/cli.md"
