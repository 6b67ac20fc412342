"""Rules of the house that no linter knows."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from tests.house.repository import PACKAGE, ROOT, kept_files, project, sources

LONGEST_FILE = 600
VALUES_THAT_USERS_BRING = {"src/trimtab/pipelines/frames.py: pandas"}
"""Imported only where a step passes such a value, which it cannot without having the package."""

SAYS_NOTHING = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_named_for_a_noun_and_is_short(path: Path) -> None:
    assert path.stem not in SAYS_NOTHING
    assert path.parent.name not in SAYS_NOTHING
    assert path.read_text().count("\n") <= LONGEST_FILE, "a file this long is two things: find their names"


def test_nothing_is_left_for_later_in_the_code() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources()
        for line in path.read_text().splitlines()
        if unfinished.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_failure_is_swallowed() -> None:
    swallowed = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
    ]
    assert not swallowed, "\n".join(swallowed)


def test_nothing_is_unpickled_in_processes_that_live_long() -> None:
    unpickles = re.compile(r"\b(cloud)?pickle\b|\bjoblib\b|\bdill\b")
    for name in ("server", "serving", "loop", "monitoring", "store"):
        for path in (PACKAGE / name).rglob("*.py"):
            imports = [
                line for line in path.read_text().splitlines() if re.match(r"\s*(import|from)\s", line)
            ]
            assert not [line for line in imports if unpickles.search(line)], path


def test_every_dependency_is_bounded_on_both_sides() -> None:
    content = project()
    listed = [
        *content["project"]["dependencies"],
        *(name for extra in content["project"]["optional-dependencies"].values() for name in extra),
        *(name for group in content["dependency-groups"].values() for name in group),
        *content["build-system"]["requires"],
    ]
    for requirement in listed:
        assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?>=[\d.]+,<[\d.]+", requirement), requirement


def test_what_the_package_imports_is_what_it_declares() -> None:
    content = project()["project"]
    requirements = [
        *content["dependencies"],
        *(name for extra in content["optional-dependencies"].values() for name in extra),
    ]
    declared = {re.split(r"[\[>]", name)[0].lower() for name in requirements}
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in sources()
        if "project" not in path.relative_to(PACKAGE).parts  # the example is a project of its own
        for module in imported_packages(ast.parse(path.read_text()))
        if not declared & {name.lower() for name in providers.get(module, [module])}
    }
    assert not undeclared - VALUES_THAT_USERS_BRING, "\n".join(sorted(undeclared))


def imported_packages(tree: ast.Module) -> set[str]:
    """The packages outside Trimtab and the standard library that a module imports."""
    names = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    return {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "trimtab"}


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|@ |--index|--find-links|--extra-index", lock)
    entries = [entry for entry in re.split(r"\n(?=[a-z])", lock) if not entry.startswith("#")]
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    pinned = {re.split(r"==", entry)[0] for entry in entries}
    content = project()
    wanted = [*content["project"]["dependencies"], *content["dependency-groups"]["dev"]]
    assert {re.split(r"[\[>]", name)[0].lower().replace("_", "-") for name in wanted} <= pinned


def test_every_relaxation_of_a_check_gives_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    ignored = re.search(r"\nignore = \[\n(.*?)\n\]", text, re.DOTALL)
    per_file = re.search(r"\[tool\.ruff\.lint\.per-file-ignores\]\n(.*?)\n\n", text, re.DOTALL)
    assert ignored
    assert per_file
    for line in [*ignored[1].splitlines(), *per_file[1].splitlines()]:
        if re.search(r'"[A-Z]+\d*"', line):
            assert "#" in line, line


def test_every_suppressed_finding_gives_its_reason() -> None:
    bare = re.compile(r"#\s*(noqa(:\s*[A-Z0-9, ]+)?|type:\s*ignore(\[[\w, -]+\])?)\s*$")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    machine = re.compile(r"/(root|work|home/\w+)/[\w.]")
    for path in kept_files():
        if path.suffix not in {".py", ".md", ".toml", ".sh", ".lock", ".html", ""} or path == Path(__file__):
            continue
        assert not machine.findall(path.read_text(errors="replace")), path.relative_to(ROOT)


def test_every_target_of_the_makefile_is_in_its_help() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z%-]*):", text, re.MULTILINE)
    helped = re.findall(r"^([a-z][a-z%-]*):.*## \S", text, re.MULTILINE)
    assert targets == helped
    assert {"venv", "demo", "test", "test-long", "lint", "types", "format", "lock", "bench", "clean"} <= set(
        targets
    )
