"""The floors of the house hold."""

import pytest
from importlinter import cli
from tests.house.repository import PACKAGE, ROOT, project


def test_each_package_imports_from_lower_floors_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(no_cache=True) == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_no_contract_lists_an_exception() -> None:
    for contract in project()["tool"]["importlinter"]["contracts"]:
        assert not contract.keys() & {"ignore_imports", "exhaustive_ignores", "skip_descendants"}, contract[
            "name"
        ]


def test_every_module_and_package_stands_on_a_floor() -> None:
    floors = project()["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for floor in floors for name in floor.split(":")}
    standing = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert standing - {"__init__", "__main__"} == named
