"""What all tests share: workspaces in fresh folders, and a private Postgres."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings

from trimtab.clock import FixedClock
from trimtab.config import Settings
from trimtab.errors import NotFoundError
from trimtab.testing.postgres import PostgresServer
from trimtab.workspace import Workspace

START = datetime(2011, 9, 1, tzinfo=UTC)
"""Event time at which a test's workspace begins."""

SERVICES_REQUIRED = os.environ.get("TRIMTAB_REQUIRE_SERVICES", "") not in {"", "0"}

# Neither a busy machine nor chance may fail a run: no deadlines, and the same examples each time in CI.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own TRIMTAB_* variables must not reach what is tested."""
    for name in [name for name in os.environ if name.startswith("TRIMTAB_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for each test process. Skips where PostgreSQL is not installed, unless services are
    required (TRIMTAB_REQUIRE_SERVICES=1): then that is a failure."""
    try:
        server = PostgresServer.start()
    except NotFoundError as error:
        if SERVICES_REQUIRED:
            pytest.fail(f"TRIMTAB_REQUIRE_SERVICES is set. {error}", pytrace=False)
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database of this test's own."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A fresh folder workspace on SQLite; its clock stands where the test sets it
    (`workspace.clock.set(...)`)."""
    with Workspace.create(tmp_path / "project", actor="tester", clock=FixedClock(START)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def any_workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """The same on each metadata store that is supported, one after the other."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with Workspace.create(
        tmp_path / "project", Settings(database=url), actor="tester", clock=FixedClock(START)
    ) as opened:
        yield opened


@pytest.fixture
def free_port() -> int:
    """A port that was free a moment ago. Where a server can bind port 0 itself, let it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
