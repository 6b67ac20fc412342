"""`steps.json`: what stands before and behind the inner model of a package, and the digest of each part.

trimtab.json        names steps.json and its digest
steps.json          the steps, the raw columns' types, and the digests of everything below
code/               the steps' source
inner/              the inner model: trimtab.json, input_example.json and its own file
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from trimtab.digest import digest_bytes
from trimtab.errors import ModelCorruptError
from trimtab.models.specification import Specification, read_confined
from trimtab.models.steps.raw_columns import RawColumn

STEPS_FILE = "steps.json"
CODE_FOLDER = "code"
INNER_FOLDER = "inner"

_encoder = msgspec.json.Encoder(order="sorted")


class PackedStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function in the packed code. `arguments` are further ones by name, as Python literals; one that is
    given rows `with_rows` gets the raw rows as its second."""

    module: str
    name: str
    arguments: dict[str, str] = {}
    with_rows: bool = False

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """`before` makes the inner model's columns of the raw `columns`, `after` its answers into others.

    `digest` is that of the steps alone; `files` are the digests of all other files by path, `packages` the
    versions of the distributions that the code uses.
    """

    before: PackedStep | None = None
    after: PackedStep | None = None
    columns: tuple[RawColumn, ...]
    digest: str
    files: dict[str, str]
    packages: dict[str, str]

    def to_json(self) -> bytes:
        """The file's bytes: keys sorted, indented, so that equal steps are equal bytes."""
        return msgspec.json.format(_encoder.encode(self), indent=2) + b"\n"


def read_steps(content: bytes) -> Steps:
    """Read the file's bytes; raises ModelCorruptError."""
    try:
        return msgspec.json.decode(content, type=Steps)
    except msgspec.MsgspecError as error:
        raise ModelCorruptError(f"'{STEPS_FILE}' cannot be understood: {error}.") from error


def read_files(folder: Path, steps: Steps) -> dict[str, bytes]:
    """The files that the steps name, checked against their digests. Raises ModelCorruptError."""
    files = {}
    for path, digest in steps.files.items():
        files[path] = read_confined(folder, path)
        if (found := digest_bytes(files[path])) != digest:
            raise ModelCorruptError(
                f"'{folder / path}' was changed after packaging: its digest is {found} and {digest} was "
                "recorded.",
                hint="Fetch the model version again.",
            )
    return files


def inner_specification(files: Mapping[str, bytes]) -> Specification:
    """That of the inner model. Raises ModelCorruptError."""
    try:
        content = files[f"{INNER_FOLDER}/trimtab.json"]
        return msgspec.json.decode(content, type=Specification)
    except (KeyError, msgspec.MsgspecError) as error:
        raise ModelCorruptError(f"The inner model's specification is unreadable: {error}.") from error
