"""What holds for every command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import Trimtab
from tests.house.repository import PACKAGE, ROOT

import trimtab as package
from trimtab.cli.main import COMMANDS, app

TALKS_ONLY = {
    "up", "data read", "data contract", "data watch", "data retry", "loop pause", "loop resume", "loop mode",
    "loop rollback", "model alias", "model govern", "endpoint watch", "endpoint deploy", "endpoint rollback",
    "endpoint delete", "serve", "token revoke",
}  # fmt: skip
"""Commands that do something and have nothing to tell a script but their exit status."""

ARGUMENTS = {
    "NAME": "bikes", "FILES": "rows.csv", "OUTPUT": "out.csv", "FOLDER": ".", "REFERENCE": "loop:loop",
    "PIPELINE": "loop:training", "LOOP": "bikes", "VERSION": "1", "ALIAS": "champion", "FILE": "rows.csv",
    "MODE": "auto", "SOURCE": "mlruns",
}  # fmt: skip


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, as Typer's own copy of click describes it."""
    group: Any = typer.main.get_command(app)
    for name in COMMANDS:
        command = group.get_command(None, name)
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


ALL = dict(commands())


def parameters(command: Any, kind: str) -> list[Any]:
    """Its arguments ("argument") or options ("option")."""
    return [parameter for parameter in command.params if parameter.param_type_name == kind]


@pytest.mark.parametrize("name", ALL)
def test_every_command_says_what_it_does_and_talks_json_where_a_script_would_listen(name: str) -> None:
    command = ALL[name]
    assert command.help
    options = parameters(command, "option")
    assert all(option.help for option in options)
    assert any("--json" in option.opts for option in options) is (name not in TALKS_ONLY)


MORE = {"predict": ["--endpoint", "bikes"], "endpoint deploy": ["--version", "1"]}
"""Options of which a command needs one."""


@pytest.mark.parametrize("name", [name for name in ALL if name not in {"init", "demo", "serve"}])
def test_without_a_project_every_command_says_how_to_make_one(
    trimtab: Trimtab, tmp_path: Path, name: str
) -> None:
    arguments = [
        ARGUMENTS[argument.name.upper()]
        for argument in parameters(ALL[name], "argument")
        if argument.required
    ]
    required = [
        word
        for option in parameters(ALL[name], "option")
        if option.required
        for word in (option.opts[0], "why")
    ]
    ended = trimtab(*name.split(), *arguments, *required, *MORE.get(name, []), "--dir", tmp_path)
    if name == "doctor":
        assert ended.status == 1
        assert "trimtab init" in ended.out
    else:
        ended.failed(3, "There is no Trimtab project in", "trimtab init")
    assert not (tmp_path / ".trimtab").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_page(trimtab: Trimtab, name: str) -> None:
    shown = trimtab(name, "--help")
    assert shown.status == 0
    assert "Usage: trimtab" in shown.out


def test_the_help_page_lists_the_commands_and_imports_none_of_them() -> None:
    code = (
        "import sys; from trimtab.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.endswith('_command') or name in ('polars', 'numpy')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    for name, words in COMMANDS.items():
        assert name in shown
        assert words in shown


def test_the_version_is_the_packages(trimtab: Trimtab) -> None:
    assert trimtab("--version").out.strip() == package.__version__


@pytest.mark.parametrize(
    "words", [["dance"], ["data", "dance"], ["data", "list", "--wide"], ["data", "append", "trips"]]
)
def test_wrong_usage_has_status_2_and_no_traceback(trimtab: Trimtab, words: list[str]) -> None:
    trimtab(*words).failed(2, "Usage: trimtab")


def test_an_error_is_json_where_json_was_asked_for(trimtab: Trimtab, project: Path) -> None:
    ended = trimtab("data", "show", "trip", "--dir", project, "--json")
    assert (ended.status, ended.out) == (3, "")
    error = json.loads(ended.err)["error"]
    assert error["code"] == "not_found"
    assert "'trip'" in error["message"]


def test_settings_that_cannot_be_used_are_named(trimtab: Trimtab, project: Path) -> None:
    (project / "trimtab.toml").write_text("port = 'many'")
    trimtab("data", "list", "--dir", project).failed(2, "The setting 'port' cannot be used")
    (project / "trimtab.toml").write_text("port = ")
    trimtab("data", "list", "--dir", project).failed(2, "is not valid TOML")


def test_a_place_that_cannot_be_written_is_named(trimtab: Trimtab, project: Path) -> None:
    place = project / "nowhere" / "rows.csv"
    trimtab("data", "read", "rentals", place, "--dir", project).failed(2, str(place))


def test_errors_and_pages_name_only_commands_that_there_are() -> None:
    named = re.compile(rf"(?<!from )trimtab ((?:{'|'.join(COMMANDS)})(?: [a-z]+)?)")
    groups = {name.split()[0] for name in ALL if " " in name}
    unknown = set()
    for path in [*PACKAGE.rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for words in named.findall(path.read_text()):
            name = words if words.split()[0] in groups else words.split()[0]
            if name not in ALL and name not in groups:
                unknown.add(f"{path.relative_to(ROOT)}: trimtab {words}")
    assert not unknown, "\n".join(sorted(unknown))


def test_the_module_is_the_command(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", "data", "list", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3
    assert ended.stderr.startswith("Error: There is no Trimtab project")
