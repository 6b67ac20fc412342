"""Projects that cannot be used: each command and role says why, and leaves them as they are."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Column, MetaData, Table, Text, update

from trimtab.server.supervisor import MISCONFIGURED, ROLES, Address
from trimtab.workspace import Workspace

PATIENCE = 60.0

LOOP = """
import polars as pl

import trimtab as tt


@tt.step
def fit(rows: pl.DataFrame) -> tt.Model:
    raise NotImplementedError


@tt.pipeline
def training() -> tt.Model:
    return fit(tt.dataset("rentls").window(tt.last(days=3)))


loop = tt.Loop("bikes", train=training, gates=[tt.gates.BeatsChampion("rmse")])
"""


def trimtab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def content(folder: Path) -> dict[str, str]:
    """What stands in a folder, but for SQLite's own shared memory."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal")) and "__pycache__" not in path.parts
    }


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A project whose workspace a newer Trimtab made."""
    with Workspace.create(tmp_path / "project") as workspace:
        revision = Table("alembic_version", MetaData(), Column("version_num", Text))
        workspace.write(lambda tx: tx.execute(update(revision).values(version_num="9999")))
    return tmp_path / "project"


def test_a_workspace_of_a_newer_version_is_refused_by_commands_and_roles(newer: Path) -> None:
    before = content(newer)
    for command in (["loop", "list"], ["data", "create", "trips"], ["up"]):
        ended = trimtab(*command, "--dir", newer)
        assert ended.returncode == 1, ended.stderr
        assert "schema 9999" in ended.stderr
        assert "pip install --upgrade trimtab" in ended.stderr
        assert "Traceback" not in ended.stderr
    address = Address.unused()
    for role in set(ROLES) - {"gateway"}:
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "trimtab.server.roles", role, "--dir", str(newer)),
                *("--host", "127.0.0.1", "--port", str(address.port), "--gateway-port", "0"),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ended.returncode == MISCONFIGURED, (role, ended.stderr)
        assert "schema 9999" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert content(newer) == before


@pytest.mark.parametrize("command", [["loop", "apply"], ["up"]])
def test_a_loop_that_names_an_unknown_dataset_starts_nothing(tmp_path: Path, command: list[str]) -> None:
    with Workspace.create(tmp_path / "project") as workspace:
        project = workspace.project
    (project / "loop.py").write_text(LOOP)
    (project / "trimtab.toml").write_text('loop = "loop:loop"\n')
    address = Address.unused()
    ports = ["--port", str(address.port), "--gateway-port", str(address.gateway_port)]
    ended = trimtab(*command, "--dir", project, *(ports if command == ["up"] else []))
    assert ended.returncode == 3, ended.stderr
    assert "dataset 'rentls', which is not there" in ended.stderr
    assert "trimtab data create rentls" in ended.stderr
    assert "Ready" not in ended.stdout
    with Workspace.open(project) as workspace, workspace.read() as connection:
        for table in ("loops", "models", "endpoints", "journal"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0, table


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("state", [".trimtab", "File exists"]),
        ("blobs", ["blobs", "Not a directory"]),
        ("database", ["not a database"]),
        ("settings", ["trimtab.toml", "not valid TOML"]),
    ],
)
def test_a_spoiled_workspace_is_told_by_its_place(tmp_path: Path, spoil: str, words: list[str]) -> None:
    Workspace.create(tmp_path).close()
    state = tmp_path / ".trimtab"
    match spoil:
        case "state":
            state.rename(tmp_path / "moved")
            state.write_text("a file")
        case "blobs":
            shutil.rmtree(state / "blobs")
            (state / "blobs").write_text("a file")
        case "database":
            (state / "metadata.db").write_bytes(b"no database" * 1000)
        case _:
            (tmp_path / "trimtab.toml").write_bytes(b"\xff\xfe")
    before = content(tmp_path)
    ended = trimtab("loop", "list", "--dir", tmp_path)
    assert ended.returncode in {2, 5}, ended.stderr
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr
    assert content(tmp_path) == before


def test_a_store_that_does_not_answer_is_told_without_its_password(tmp_path: Path, free_port: int) -> None:
    Workspace.create(tmp_path).close()
    (tmp_path / "trimtab.toml").write_text(
        f'database = "postgresql://ada:hunter2@127.0.0.1:{free_port}/trimtab"\n'
    )
    for command, status in ((["loop", "list"], 5), (["up"], 5), (["doctor"], 1)):
        ended = trimtab(*command, "--dir", tmp_path)
        assert ended.returncode == status, ended.stderr
        assert "does not answer" in ended.stderr + ended.stdout
        assert "hunter2" not in ended.stderr + ended.stdout
        assert "Traceback" not in ended.stderr
    shown = trimtab("doctor", "--settings", "--dir", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert f"ada:***@127.0.0.1:{free_port}" in "".join(shown.stdout.split())
    assert "hunter2" not in shown.stdout
