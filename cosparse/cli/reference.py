"""docs/cli.md: every command with all its options, from the commands themselves.

python -m cosparse.cli.reference > docs/cli.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from cosparse.cli import app

HEAD = """# Commands

Every command and option, as `cosparse COMMAND --help` has them; made by `python -m cosparse.cli.reference > docs/cli.md`.
Examples: [README](../README.md#a-trained-network-from-end-to-end); what the options of `compress` mean for training:
[training.md](training.md), those of `serve`: [serving.md](serving.md).
"""


def pages() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    yield HEAD
    for name, command in group.commands.items():
        context = typer.Context(command)
        arguments = [piece for p in command.params if p.param_type_name == "argument" for piece in p.get_usage_pieces(context)]
        yield f"## cosparse {name}\n\n{_line(command.help)}\n\n```\n{' '.join(['cosparse', name, *arguments, '[OPTIONS]'])}\n```\n"
        yield "| option | meaning |\n| --- | --- |"
        for option in command.params:
            if option.param_type_name == "option":
                names, meaning = option.get_help_record(context)
                yield f"| `{_line(names)}` | {_line(meaning)} |"
        yield ""


def _line(text: str | None) -> str:
    """One line, in which Markdown sees neither columns nor emphasis."""
    return re.sub(r"[|*]", r"\\\g<0>", " ".join((text or "").split()))


if __name__ == "__main__":
    print("\n".join(pages()).rstrip())
