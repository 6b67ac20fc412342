"""`trimtab gc`: give back the space of what was deleted."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import msgspec
import typer

from trimtab.cli.group import single_command
from trimtab.cli.output import AsJson, print_fields, print_json, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.errors import InvalidInputError
from trimtab.loop.garbage import SETTLING, collect_garbage
from trimtab.store.vacuum import vacuum

app = single_command()

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")


@app.command()
def gc(
    project: Project = HERE,
    older_than: Annotated[
        str, typer.Option(help="Only what was deleted for longer than this, e.g. 7d, 12h or 0d.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact", help="Then rewrite the metadata file without its free space; who writes waits."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete for good what was deleted: runs, experiments, logged models, and files that nothing needs."""
    age = duration(older_than)
    with open_workspace(project) as workspace:
        collected = collect_garbage(workspace, older_than=age, dry_run=dry_run)
        if compact and not dry_run:
            given_back = vacuum(workspace.database)
            collected = msgspec.structs.replace(
                collected, database_bytes=0, bytes=collected.bytes + given_back
            )
    if as_json:
        print_json(collected)
        return
    print_fields(
        {
            name: f"{value:,}" if isinstance(value, int) else value
            for name, value in msgspec.structs.asdict(collected).items()
            if name not in {"dry_run", "older_than_seconds"}
        }
    )
    if dry_run:
        say("Nothing was deleted: this is what `trimtab gc` with the same options would let go of.")
    if age < SETTLING:
        say("Files of the last day stay for now, since somebody may be about to use them.")
    if collected.database_bytes:
        say("The metadata file fills its free space again; --compact gives it back to the disk.")


def duration(text: str) -> timedelta:
    """A time such as 7d, 12h or 1w2d; raises InvalidInputError."""
    if not _DURATION.fullmatch(text):
        raise InvalidInputError(f"'{text:.40}' is not a length of time.", hint="Use one such as 30d or 12h.")
    parts = re.findall(r"([\d.]+)([smhdw])", text)
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise InvalidInputError(f"'{text:.40}' is too long a time.") from None
