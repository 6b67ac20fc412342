"""The settings: one typed model, filled from `trimtab.toml` and `TRIMTAB_*` variables.

A variable wins over the file; an argument in code wins over both.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from trimtab.errors import InvalidInputError, unknown

FILE_NAME = "trimtab.toml"
STATE_FOLDER = ".trimtab"


class Settings(BaseSettings):
    """What a user may set. Every field stands in `trimtab.toml` under its own name."""

    model_config = SettingsConfigDict(env_prefix="TRIMTAB_", extra="forbid", frozen=True)

    database: str | None = Field(
        None, description="metadata store: a Postgres URL; by default SQLite inside the state folder"
    )
    blobs: str | None = Field(None, description="blob store URL; by default a folder inside the state folder")
    tables: str | None = Field(
        None, description="table store URL; by default a folder inside the state folder"
    )
    loop: str | None = Field(None, description="the loop that `trimtab up` applies, as 'module:name'")
    host: str = Field("127.0.0.1", description="address that the server and the gateway listen on")
    port: int = Field(8600, ge=0, le=65535, description="port of the server role")
    gateway_port: int = Field(8601, ge=0, le=65535, description="port of the gateway role")
    gateway_grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port of the gateway role for gRPC; by default it speaks none"
    )
    gateway_workers: int = Field(1, ge=1, le=64, description="gateway worker processes")
    token: SecretStr | None = Field(
        None, min_length=1, description="bearer token that every route but health demands"
    )
    cpu: int = Field(2, ge=1, description="steps that a worker runs at a time")
    model_threads: int = Field(1, ge=1, description="threads that one prediction may use")
    confined_models: tuple[str, ...] = Field(
        (),
        description="models, by name or pattern ('price-*'), that are served in a process of their own "
        "although only their own code (a pickle) can load them; no others are",
    )
    confined_memory_mb: int = Field(4096, ge=256, description="address space of such a process, megabytes")
    confined_timeout_ms: int = Field(
        10_000, ge=10, description="how long such a process may take for one call"
    )
    body_limit: int = Field(8 * 2**20, ge=1024, description="largest request body, bytes")
    log_full: Literal["refuse", "drop", "sample"] = Field(
        "refuse",
        description="what a gateway does when its prediction log has no room: refuse to answer, answer and "
        "drop the record, or keep every tenth record once the log is half full",
    )
    log_disk_limit: int = Field(
        10 * 2**30, ge=2**20, description="bytes that the prediction log may hold until it is shipped"
    )
    log_segment_rows: int = Field(20_000, ge=1, description="rows after which a log segment is shipped")
    log_segment_days: float = Field(
        7.0, gt=0, description="days of event time after which a segment is shipped"
    )
    recent_days: int = Field(90, ge=1, description="days that predictions stay in the fast index for labels")
    webhook: str | None = Field(None, description="URL that alerts are posted to")
    metrics_flush_ms: int = Field(
        50, ge=1, le=10_000, description="how long `trimtab.log` may hold values back"
    )

    def shown(self) -> dict[str, object]:
        """All settings as builtins, without what is secret in them."""
        values: dict[str, object] = self.model_dump(mode="json")
        for name in ("database", "blobs", "tables"):
            if (url := getattr(self, name)) is not None:
                values[name] = without_secrets(url)
        if self.webhook is not None:  # who knows its path may post there
            values["webhook"] = without_secrets(self.webhook, path=False)
        return values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Explicit arguments first, then the environment, then the file (given as the argument `_file`)."""
        assert isinstance(init_settings, InitSettingsSource)
        given = dict(init_settings.init_kwargs)
        from_file = given.pop("_file", {})
        return (
            InitSettingsSource(settings_cls, init_kwargs=given),
            env_settings,
            InitSettingsSource(settings_cls, init_kwargs=from_file),
        )


def load_settings(project: Path, **overrides: object) -> Settings:
    """The settings of the project in this folder.

    Raises InvalidInputError, naming file and field, for a file that is not TOML, an unknown field or a
    value of the wrong kind.
    """
    path = project / FILE_NAME
    try:
        content = tomllib.loads(path.read_text()) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return Settings.model_validate({"_file": content, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = unknown("setting", field, Settings.model_fields).hint
            raise InvalidInputError(
                f"There is no setting '{field}', which stands in {path}.", hint=near
            ) from None
        raise InvalidInputError(
            f"The setting '{field}' cannot be used: {first['msg']}.",
            hint=f"See {path} and the variable TRIMTAB_{field.upper()}.",
        ) from None


def without_secrets(url: str, *, path: bool = True) -> str:
    """A URL as it may be shown: without its password and the values in its query; without its path, if not
    `path`. What is no URL comes back as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    if not parts.scheme or not parts.netloc:
        return url
    account, at, place = parts.netloc.rpartition("@")
    name, colon, _ = account.partition(":")
    query = "&".join(f"{item.partition('=')[0]}=***" for item in parts.query.split("&") if item)
    shown = parts.path if path or parts.path in {"", "/"} else "/***"
    return urlunsplit((parts.scheme, f"{name}{colon and ':***'}{at}{place}", shown, query, ""))
