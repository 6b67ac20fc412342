"""Every version of MLflow's client that is supported gets the same answers from both servers.

Each client lives in a virtual environment of its own, made once in the user's cache by pip.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.mlflow.peers.told import both, differences

WITH = ("scikit-learn", "pandas", "pillow", "matplotlib")


def client(wanted: str) -> str:
    """The Python of an environment that holds this mlflow-skinny and what the script can use besides."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "trimtab" / "peers" / f"client-{wanted.removesuffix('.*')}"
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([*install, f"mlflow-skinny=={wanted}", *WITH], check=True)
    return python


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", ["3.6.*", "3.9.*", "3.12.*", "3.15.*", "3.*"])
def test_a_client_of_each_version_gets_the_same_answers(version: str, tmp_path: Path) -> None:
    told = both(client(version), tmp_path)
    assert differences(*told) == []
    assert told[0].asked() == told[1].asked()
    assert told[0].unknown_endpoints() == []
    assert told[0].failures() == []
