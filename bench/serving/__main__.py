"""`python -m cosparse.bench.serving M.cosparse [--only overhead,soak] [--json FILE]`: status 1 where a bar is missed.

Server and clients share the machine: on few cores the clients take a good part of it, and every figure is that of both together.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cosparse.bench import environment, neighbours
from cosparse.bench.serving.parts import PARTS, Setting
from cosparse.errors import Error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cosparse.bench.serving", description=__doc__)
    parser.add_argument("artifact", type=Path, help="a network with one input, such as a CIFAR network")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: %(default)s)")
    parser.add_argument("--soak", type=int, default=100_000, help="requests of the soak (default: %(default)s)")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    given = parser.parse_args(arguments)
    asked = given.only.split(",")
    try:
        if unknown := [name for name in asked if name not in PARTS]:
            raise Error("--only", f"some of {', '.join(PARTS)}", ", ".join(unknown))
        setting = Setting(given.artifact, given.threads, given.clients, given.seconds, given.soak, given.max_batch)
        if len(setting.engine().inputs) != 1:
            raise Error(str(given.artifact), "a network with one input", str(len(setting.engine().inputs)))
        busy = neighbours.sample(0.5)
        results = {}
        for name in asked:
            results[name] = PARTS[name](setting)
            print(f"{name}: {'passed' if results[name]['passed'] else 'MISSED'} ({results[name]['bar']})", file=sys.stderr)
    except Error as error:
        print(f"cosparse.bench.serving: {error}", file=sys.stderr)
        return 2
    machine = {"cpu": environment.cpu_model(), "cores": len(environment.processors()), "busy_before": busy, "quiet": neighbours.quiet(busy)}
    shown = {"artifact": given.artifact.name, "threads": given.threads, "clients": given.clients, "machine": machine, "parts": results}
    text = json.dumps(shown, indent=2, allow_nan=False) + "\n"
    if given.json:
        given.json.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0 if all(result["passed"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
