"""Gates as people write them: one in a line, or all in a file.

    metric rmse max=10
    beats_champion rmse margin=0.1
    slice_minimum rmse column=city max=15 min_rows=100
    latency p99_ms=20

A line is the kind of gate, then its metric where it has one, then its fields as name=value; a hyphen in a
kind or a name counts as an underscore.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from trimtab.data.window import Window
from trimtab.errors import InvalidInputError, unknown
from trimtab.models.gates import AnyGate, Gate

_KINDS: Mapping[str, type[Gate]] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyGate)}


class GateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of gates says: the gates, and where it says so, the rows to judge them on."""

    gates: tuple[AnyGate, ...] = ()
    dataset: str | None = None
    target: str | None = None
    window: Window = Window()


def gate_of(line: str) -> AnyGate:
    """The gate that a line declares; raises InvalidInputError."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidInputError(f"The gate '{line}' cannot be read: {error}.") from error
    if not words:
        raise InvalidInputError("A gate is blank.", hint=_example())
    kind = words[0].replace("-", "_")
    if kind not in _KINDS:
        raise InvalidInputError(
            f"There is no kind of gate '{words[0]}'.", hint=unknown("kind of gate", kind, _KINDS).hint
        )
    declared: dict[str, str] = {}
    for place, word in enumerate(words[1:]):
        name, sign, value = word.partition("=")
        if not sign and place == 0 and "metric" in _KINDS[kind].__struct_fields__:
            name, value = "metric", word
        elif not sign:
            raise InvalidInputError(f"The gate '{line}' has '{word}', and no name for it.", hint=_example())
        name = name.replace("-", "_")
        if name in declared:
            raise InvalidInputError(f"The gate '{line}' says '{name}' twice.")
        declared[name] = value
    return _converted({"gate": kind, **declared}, f"The gate '{line}'", strict=False)


def gate_file(path: Path) -> GateFile:
    """Read a file of gates, TOML or JSON by its ending; raises InvalidInputError."""
    try:
        content = path.read_bytes()
        if path.suffix == ".json":
            document: Any = msgspec.json.decode(content)
        elif path.suffix == ".toml":
            document = tomllib.loads(content.decode())
        else:
            raise InvalidInputError(
                f"{path} is no file of gates: its name ends neither in .toml nor in .json.",
                hint="See docs/how-to/govern-a-model.md for what stands in one.",
            )
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}.") from error
    if isinstance(document, list):
        document = {"gates": document}
    if isinstance(document, dict) and isinstance(document.get("gates"), list):
        read = [gate_of(each) if isinstance(each, str) else each for each in document["gates"]]
        document["gates"] = [msgspec.to_builtins(each) for each in read]
    try:
        return msgspec.convert(document, GateFile)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{path} cannot be understood: {error}.") from error


def _converted(declared: dict[str, str], what: str, *, strict: bool) -> AnyGate:
    try:
        found: AnyGate = msgspec.convert(declared, AnyGate, strict=strict)
    except msgspec.ValidationError as error:
        fields = ", ".join(_KINDS[declared["gate"]].__struct_fields__)
        raise InvalidInputError(
            f"{what} cannot be understood: {error}.", hint=f"Its fields are: {fields or 'none'}."
        ) from error
    return found


def _example() -> str:
    return "Write it like 'metric rmse max=10' or 'latency p99_ms=20'."
