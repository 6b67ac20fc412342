"""The command line in this process, and projects to call it on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.loop.scene import Scene

from trimtab.cli.main import main

STATUSES = {"invalid_input": 2, "not_found": 3, "conflict": 4, "refused": 4}


class Result(msgspec.Struct, frozen=True):
    """What a command left behind: its exit status, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that it printed."""
        assert self.status == 0, self.err
        return json.loads(self.out)

    def failed(self, status: int, *words: str) -> None:
        """It ended with this status and said these words, without a traceback."""
        told = " ".join(self.err.split())
        assert (self.status, "Traceback" in self.err) == (status, False), self.err + self.out
        for word in words:
            assert word in told, told


Trimtab = Callable[..., Result]


@pytest.fixture
def trimtab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Trimtab:
    """Run a command line: `trimtab("data", "list", "--json")`."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        status = ended.value.code
        return Result(
            status if isinstance(status, int) else int(status is not None), written.out, written.err
        )

    return run


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A project with the dataset `rentals` and the loop `bikes`, whose first version is champion."""
    made = Scene(tmp_path)
    made.bootstrap()
    yield made
    made.close()


@pytest.fixture
def project(scene: Scene) -> Path:
    """The folder of that project."""
    return scene.workspace.project
