"""Peers: software that benchmarks compare with, each in a virtual environment of its own.

An environment is made once, in the user's cache. TRIMTAB_PEERS names another folder for all of them, and
TRIMTAB_PEER_MLFLOW (or another name) an environment that stands already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def peer(name: str, version: str, *, beside: Sequence[str] = ()) -> Path:
    """The Python of an environment that holds the package `name` in this version, and the requirements
    `beside` it."""
    given = os.environ.get(f"TRIMTAB_PEER_{name.upper()}")
    if given:
        python = Path(given) / "bin" / "python"
        found = version_in(python, name)
        if found != version:
            raise SystemExit(f"{given} holds {name} {found}; this benchmark compares with {version}.")
        return python
    folder = cache() / f"{name}-{version}"
    python = folder / "bin" / "python"
    complete = folder / ".complete"
    if not complete.exists():
        print(f"  installing {name} {version} into {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [
                *(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *(f"{name}=={version}", *beside),
            ],
            check=True,
        )
        complete.touch()
    return python


def cache() -> Path:
    """The folder of all environments."""
    if given := os.environ.get("TRIMTAB_PEERS"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimtab" / "peers"


def version_in(python: Path, package: str) -> str:
    """The version of a package in an environment, "none" if it is not there."""
    code = (
        "import importlib.metadata, sys\n"
        "try: print(importlib.metadata.version(sys.argv[1]))\n"
        "except importlib.metadata.PackageNotFoundError: print('none')"
    )
    return subprocess.run(
        [python, "-c", code, package], check=True, capture_output=True, text=True
    ).stdout.strip()
