"""The commands `journal`, `token`, `doctor`, `up` and `demo`, as far as they need nothing running."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import update
from tests.cli.conftest import Trimtab
from tests.loop.scene import Scene

from trimtab.store.schema import journal_table


def test_the_journal_is_listed_by_what_it_is_about_and_verified(trimtab: Trimtab, project: Path) -> None:
    at = ("--dir", project)
    entries = trimtab("journal", "list", *at, "--json").json
    assert entries == sorted(entries, key=lambda entry: -entry["seq"])
    moved = trimtab("journal", "list", "--action", "cycle.moved", "--limit", "2", *at, "--json").json
    assert [entry["action"] for entry in moved] == ["cycle.moved"] * 2
    assert "cycle.moved" in trimtab("journal", "list", "--kind", "cycle", "--name", "bikes-1", *at).out
    assert "The journal is empty" in trimtab("journal", "list", "--kind", "dance", *at).out
    verified = trimtab("journal", "verify", *at, "--json").json
    assert verified["entries"] == entries[0]["seq"]
    assert "yes" in trimtab("journal", "verify", *at).out


def test_a_journal_that_was_tampered_with_fails_with_status_1(
    trimtab: Trimtab, project: Path, scene: Scene
) -> None:
    entry = journal_table.c.seq == 3
    scene.workspace.write(lambda tx: tx.execute(update(journal_table).where(entry).values(reason="nothing")))
    ended = trimtab("journal", "verify", "--dir", project)
    ended.failed(1, "3")
    assert '"journal_broken"' in trimtab("journal", "verify", "--dir", project, "--json").err


def test_a_token_is_shown_once_listed_without_itself_and_revoked(trimtab: Trimtab, project: Path) -> None:
    at = ("--dir", project)
    made = trimtab("token", "create", "ci", *at, "--json").json
    assert made["name"] == "ci"
    trimtab("token", "create", "ci", *at).failed(4, "'ci'")
    listed = trimtab("token", "list", *at, "--json")
    assert [token["name"] for token in listed.json] == ["ci"]
    assert made["token"] not in listed.out
    assert "revoked" in trimtab("token", "revoke", "ci", *at).out
    trimtab("token", "revoke", "cd", *at).failed(3, "'cd'")
    assert "ci" in trimtab("token", "list", *at).out


def test_doctor_tells_what_is_well_and_what_every_setting_is(trimtab: Trimtab, project: Path) -> None:
    found = trimtab("doctor", "--dir", project, "--json").json
    assert {finding["status"] for finding in found} <= {"ok", "warning"}
    assert "roles" in trimtab("doctor", "--dir", project).out
    settings = trimtab("doctor", "--settings", "--dir", project, "--json").json
    assert settings["gateway_port"] == 8601
    assert "gateway_port" in trimtab("doctor", "--settings", "--dir", project).out


def test_up_says_why_the_loop_cannot_be_applied_and_starts_nothing(trimtab: Trimtab, project: Path) -> None:
    (project / "trimtab.toml").write_text('loop = "mine:loop"')
    assert trimtab("up", "--dir", project).status == 2
    trimtab("up", "--port", "0", "--dir", project).failed(2, "--port")
    assert not (project / ".trimtab" / "logs").exists()


def test_the_demo_leaves_a_folder_that_holds_something_else(trimtab: Trimtab, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    trimtab("demo", "--dir", tmp_path).failed(4, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
