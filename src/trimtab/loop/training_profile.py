"""What a registered version was trained on, where a loop made it."""

from __future__ import annotations

import msgspec
from sqlalchemy import select

from trimtab.data.profiles import Profile
from trimtab.loop.declaration import Declaration
from trimtab.loop.schema import cycles_table, loop_versions_table
from trimtab.workspace import Workspace


def training_profile(workspace: Workspace, model: str, version: int) -> Profile | None:
    """The profile of the rows that a version was trained on; None if no loop made it."""
    cycles, declared = cycles_table.c, loop_versions_table.c
    query = (
        select(cycles.profile, declared.declaration)
        .join(loop_versions_table, (declared.loop == cycles.loop) & (declared.version == cycles.declaration))
        .where(cycles.candidate == version, cycles.profile != "")
        .order_by(cycles.number.desc())
    )
    with workspace.read() as connection:
        found = connection.execute(query).all()
    for row in found:
        if msgspec.json.decode(row.declaration, type=Declaration).model == model:
            return Profile.from_bytes(workspace.blobs.get(row.profile))
    return None
