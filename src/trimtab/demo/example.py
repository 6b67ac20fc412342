"""The example project, as `trimtab init --example bikes` writes it."""

from __future__ import annotations

import shutil
from pathlib import Path

from trimtab.errors import ConflictError, unknown

EXAMPLES = {"bikes": Path(__file__).parent / "bikes"}
"""The folder of each example: its `project` to copy, its data, and where the data comes from."""


def write_example(name: str, folder: Path) -> list[Path]:
    """Write an example project into a folder that is empty or not there; answers the files.

    Raises NotFoundError for an unknown example, ConflictError if the folder holds anything.
    """
    if name not in EXAMPLES:
        raise unknown("example", name, EXAMPLES)
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError(f"The folder {folder} is not empty.", hint="Name another one with --dir.")
    source = EXAMPLES[name]
    shutil.copytree(
        source / "project", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    (folder / "data").mkdir(exist_ok=True)
    shutil.copy(source / "rentals.parquet", folder / "data")
    shutil.copy(source / "ATTRIBUTION.md", folder / "data")
    return sorted(path for path in folder.rglob("*") if path.is_file())
