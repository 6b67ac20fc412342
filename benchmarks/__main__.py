"""Runs the benchmarks: `python -m benchmarks` for all of them, `python -m benchmarks NAME ...` for some.

A benchmark is a module in this folder with a `main`; each runs in a process of its own, measures a peer in
the same run where there is one, and prints the ratio.
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
    return {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}


def described(path: Path) -> str:
    """The first line of a benchmark's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def main() -> int:
    known = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    parser.add_argument("--list", action="store_true", help="say what each benchmark measures, and end")
    given = parser.parse_args()
    for name in given.names:
        if name not in known:
            parser.error(f"there is no benchmark '{name}'; there are: {', '.join(known)}")
    if given.list:
        for name, path in known.items():
            print(f"{name:14} {described(path)}")
        return 0
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {platform.machine()}")
    failed = []
    for name in given.names or known:
        print(f"\n{name}: {described(known[name])}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=FOLDER.parent, check=False)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
