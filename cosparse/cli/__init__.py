"""The `cosparse` command. Exit status: 0 done, 1 a bar in the command itself failed, 2 bad input, 130 interrupted.

Each command is one file and imports what it needs when it runs, so that `--help` answers at once and `inspect` needs no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import rich  # noqa: F401  asked for here, so that the one sentence about a missing package comes before any work
import typer

from cosparse.cli import bench, compress, demo, doctor, evaluate, export, inspect, run_file, serve
from cosparse.errors import Error

app = typer.Typer(
    name="cosparse",
    help="Train networks whose weights are sparse in a transform domain, and run them so that operations saved are time saved.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.command,
    "compress": compress.command,
    "export": export.command,
    "inspect": inspect.command,
    "run": run_file.command,
    "eval": evaluate.command,
    "bench": bench.command,
    "serve": serve.command,
    "doctor": doctor.command,
}
for name, command in COMMANDS.items():
    app.command(name)(command)

EXTRAS = {
    "torch": "compress",
    "scipy": "compress",
    "pyarrow": "compress",
    "PIL": "compress",
    "sklearn": "compress",
    "matplotlib": "compress",
    "kornia": "compress",
    "pycocotools": "compress",
    "tensorboard": "tensorboard",
    "torch_pruning": "filters",
    "jinja2": "bench",
    "onnx": "bench",
    "onnxruntime": "bench",
    "uvicorn": "serve",
    "starlette": "serve",
    "httptools": "serve",
    "grpc": "serve",
    "tritonclient": "serve",
    "orjson": "serve",
    "prometheus_client": "serve",
}


@app.callback(invoke_without_command=True)
def _top(context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from importlib import metadata

        typer.echo(f"cosparse {metadata.version('cosparse')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; the exit status. Whatever the user can put right becomes one sentence on standard error."""
    try:
        if sys.stdout is None:  # said before the work whose result would have no place
            raise Error("standard output", "an open one", "a closed one", "> /dev/null where nobody reads it")
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
            raise Error("command", f"one of {', '.join(COMMANDS)}", repr(arguments[0]))
        status = app(args=list(arguments), prog_name="cosparse", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)
    except Error as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        return _complain(f"this needs the package {package}; next step: pip install 'cosparse[{EXTRAS[package]}]'")
    except OSError as error:
        return _complain(": ".join(str(part) for part in (error.filename, error.strerror) if part is not None) or str(error))
    except OverflowError as error:
        return _complain(f"a number is too large: {error}")
    except Exception as error:
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # torch's own is a RuntimeError
            return _complain(f"out of memory: {str(error).partition('DefaultCPUAllocator: ')[2] or error}".rstrip(": "))
        if not hasattr(error, "format_message"):  # Typer's own complaint about an option; its class moves between versions
            raise
        return _complain(error.format_message().rstrip("."))
    return status if isinstance(status, int) else 0


def _complain(sentence: str, status: int = 2) -> int:
    if sys.stderr is not None:
        print("cosparse: " + " ".join(sentence.split()), file=sys.stderr)
    return status
