"""Project snapshots: the first-party source of a user's project as one tree in the blob store.

Workers run the code of a snapshot, never that of the folder, so that what ran can be found again and an
edit in the middle of a cycle changes nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trimtab.config import FILE_NAME
from trimtab.digest import is_digest
from trimtab.errors import InvalidInputError
from trimtab.pipelines.codecs import load_object
from trimtab.pipelines.modules import is_first_party
from trimtab.workspace import Workspace

SUFFIXES = frozenset({".py", ".toml", ".json", ".yaml", ".yml", ".sql", ".txt", ".cfg", ".ini"})
IGNORED = frozenset({"data", "node_modules", "__pycache__", "build", "dist", "venv", "env", "mlruns"})
FILE_LIMIT = 2 * 2**20
TOTAL_LIMIT = 64 * 2**20


def source_files(folder: Path) -> Iterator[Path]:
    """The files of a project that belong to its source, in a fixed order.

    These are Python, TOML, JSON, YAML, SQL and small text files outside hidden folders, environments,
    `data` and build results. `trimtab.toml` is no source, for it may hold secrets. Symbolic links are not
    followed. Files above 2 MiB are data, and left out.
    """
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if _is_source_folder(here / name))
        for name in sorted(files):
            path = here / name
            if (
                path.suffix in SUFFIXES
                and path.relative_to(folder) != Path(FILE_NAME)
                and not name.startswith(".")
                and not path.is_symlink()
                and path.stat().st_size <= FILE_LIMIT
            ):
                yield path


def _is_source_folder(folder: Path) -> bool:
    return not (
        folder.name.startswith(".")
        or (folder.name in IGNORED and not (folder / "__init__.py").exists())
        or folder.name.endswith(".egg-info")
        or folder.is_symlink()
        or (folder / "pyvenv.cfg").exists()
        or (folder / ".trimtab").exists()  # another project
    )


def snapshot(workspace: Workspace, folder: Path | None = None) -> str:
    """Keep the source of the project in `folder` (the workspace's own, if None); answers its digest.

    The same source gives the same digest. Raises InvalidInputError if it is too large to be source.
    """
    root = (folder or workspace.project).resolve()
    if not root.is_dir():
        raise InvalidInputError(f"There is no folder {root}.", hint="Name the folder of the project.")
    total = 0
    with tempfile.TemporaryDirectory(dir=workspace.cache, prefix="snapshot-") as draft:
        for path in source_files(root):
            total += path.stat().st_size
            if total > TOTAL_LIMIT:
                raise InvalidInputError(
                    f"The source in {root} is larger than {TOTAL_LIMIT // 2**20} MB.",
                    hint="Keep data in a folder called 'data', or outside the project.",
                )
            copy = Path(draft) / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        return workspace.blobs.put_tree(Path(draft))


def checkout(workspace: Workspace, digest: str) -> Path:
    """The folder with the source of a snapshot, made if it is not there yet."""
    if not is_digest(digest):
        raise InvalidInputError(f"'{digest}' is not the digest of a project snapshot.")
    place = workspace.cache / "projects" / digest.removeprefix("b3:")
    workspace.blobs.fetch_tree(digest, place)
    return place


def import_paths(root: Path) -> list[str]:
    """Where the modules of a project are found: its folder, and `src` in it."""
    source = root / "src"
    return [str(root), *([str(source)] if source.is_dir() else [])]


@contextlib.contextmanager
def importing_from(root: Path) -> Iterator[None]:
    """Within this, imports find the modules of the project in `root` before any others.

    Modules of the same names that were imported from elsewhere (another snapshot) are forgotten.
    """
    paths = import_paths(root)
    _forget_namesakes(root, paths)
    before = list(sys.path)
    sys.path[:0] = paths
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def import_project_object(root: Path, reference: str) -> object:
    """The object "module:name" of the project in `root`; raises InvalidInputError if there is none."""
    with importing_from(root.resolve()):
        return load_object(reference)


def _forget_namesakes(root: Path, paths: list[str]) -> None:
    names = {
        entry.stem if entry.suffix == ".py" else entry.name
        for path in paths
        for entry in Path(path).iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").is_file()
    }
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in names:
            continue
        file = getattr(module, "__file__", None)
        if file is not None and _is_replaceable(Path(file), root):
            del sys.modules[name]


def _is_replaceable(file: Path, root: Path) -> bool:
    return is_first_party(file) and not file.is_relative_to(root)
