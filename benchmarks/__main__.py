"""Runs the benchmarks: `python -m benchmarks` for all of them, `python -m benchmarks NAME ...` for some.

A benchmark is a module in this folder with a `main`, or a package with one in its `__main__`; each runs in a
process of its own, measures a peer in the same run where there is one, and prints the ratio. Options after
its name, as in `python -m benchmarks tracking --quick`, are for the benchmark.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def benchmarks() -> dict[str, Path]:
    """All benchmarks by name."""
    modules = {path.stem: path for path in FOLDER.glob("*.py") if not path.stem.startswith("_")}
    packages = {path.parent.name: path for path in FOLDER.glob("*/__main__.py")}
    found = {name: path for name, path in modules.items() if has_main(path)} | packages
    return dict(sorted(found.items()))


def has_main(path: Path) -> bool:
    """Whether a module can be run, or is only used by others."""
    return any(
        isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(path.read_text()).body
    )


def described(path: Path) -> str:
    """The first line of a benchmark's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def divided(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What is for this program, and what from the first other option on is for the benchmark."""
    for place, argument in enumerate(arguments):
        if argument.startswith("-") and argument not in {"--list", "--help", "-h"}:
            return arguments[:place], arguments[place:]
    return arguments, []


def main() -> int:
    known = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    parser.add_argument("--list", action="store_true", help="say what each benchmark measures, and end")
    own, options = divided(sys.argv[1:])
    given = parser.parse_args(own)
    for name in given.names:
        if name not in known:
            parser.error(f"there is no benchmark '{name}'; there are: {', '.join(known)}")
    if given.list:
        for name, path in known.items():
            print(f"{name:14} {described(path)}")
        return 0
    if options and len(given.names) != 1:
        parser.error(f"{' '.join(options)}: options are for one benchmark; name it before them")
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {platform.machine()}")
    failed = []
    for name in given.names or known:
        print(f"\n{name}: {described(known[name])}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *options], cwd=FOLDER.parent, check=False
        )
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
