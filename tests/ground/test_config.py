"""Settings: argument over variable over file, and errors that name the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.config import load_settings
from trimtab.errors import InvalidInputError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "trimtab.toml").write_text('port = 9001\nhost = "::1"\n')
    return tmp_path


def test_a_variable_wins_over_the_file_and_an_argument_over_both(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_PORT", "9002")
    monkeypatch.setenv("TRIMTAB_CPU", "7")
    settings = load_settings(project, cpu=3)
    assert (settings.host, settings.port, settings.cpu) == ("::1", 9002, 3)


def test_a_folder_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path).host == "127.0.0.1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prt = 1", r"no setting 'prt'.*Did you mean 'port'"),
        ('token = ""', "setting 'token'"),
        ("port = 70000", "setting 'port'"),
        ("port = [", "not valid TOML"),
        ('log_full = "maybe"', "setting 'log_full'"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "trimtab.toml").write_text(content)
    with pytest.raises(InvalidInputError, match=words):
        load_settings(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    place = tmp_path / "trimtab.toml"
    if content is None:
        place.mkdir()
    else:
        place.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"trimtab\.toml"):
        load_settings(tmp_path)


def test_what_is_shown_of_the_settings_has_no_secret_in_it(project: Path) -> None:
    settings = load_settings(
        project,
        database="postgresql://ada:hunter2@db.example:5432/trimtab?sslpassword=hunter2",
        blobs="s3://bucket/prefix?secret_access_key=hunter2",
        webhook="https://hooks.example/services/hunter2",
        token="hunter2",
    )
    shown = settings.shown()
    assert "hunter2" not in str(shown)
    assert shown["database"] == "postgresql://ada:***@db.example:5432/trimtab?sslpassword=***"
    assert shown["blobs"] == "s3://bucket/prefix?secret_access_key=***"
    assert shown["webhook"] == "https://hooks.example/***"
    assert (shown["host"], shown["port"]) == ("::1", 9001)


def test_a_token_is_not_shown(project: Path) -> None:
    assert "hunter2" not in repr(load_settings(project, token="hunter2"))
