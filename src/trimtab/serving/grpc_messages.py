"""The messages of open_inference.proto, made from that file when this module is loaded.

Generated code would have to be at most as new as the protobuf that runs it, and would share one registry with
the code that a client in the same process brings for the same names; these stand in a registry of their own.
What is read here is the part of the language that the file uses: messages, nested ones, fields, maps, oneofs
and enums.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FILE = "open_inference.proto"

_TOKEN = re.compile(r"//[^\n]*|\"[^\"]*\"|[A-Za-z_][\w.]*|\d+|[{}()<>;=,]")
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_FIELD, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


class _Reader:
    """Reads the file's messages; what it does not know raises ValueError."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = [token for token in _TOKEN.findall(text) if not token.startswith("//")]
        self._place = 0
        self.file = descriptor_pb2.FileDescriptorProto(name=f"trimtab/{FILE}", syntax="proto3")

    def read(self) -> None:
        """Read the whole file into `file`."""
        while self._place < len(self._tokens):
            match self._next():
                case "syntax":
                    self._until(";")
                case "package":
                    self.file.package = self._next()
                    self._expect(";")
                case "service":
                    self._until("}")
                case "message":
                    self._message(self.file.message_type.add())
                case "enum":
                    self._enum(self.file.enum_type.add())
                case token:
                    raise ValueError(f"'{token}' is not understood in {FILE}")

    def _next(self) -> str:
        self._place += 1
        return self._tokens[self._place - 1]

    def _expect(self, *wanted: str) -> None:
        for each in wanted:
            if (found := self._next()) != each:
                raise ValueError(f"'{found}' stands in {FILE} where '{each}' should")

    def _until(self, end: str) -> None:
        while self._next() != end:
            pass

    def _message(self, message: Any) -> None:
        message.name = self._next()
        self._expect("{")
        while (token := self._next()) != "}":
            match token:
                case "message":
                    self._message(message.nested_type.add())
                case "map":
                    self._map(message)
                case "oneof":
                    message.oneof_decl.add(name=self._next())
                    self._expect("{")
                    while (kind := self._next()) != "}":
                        self._field(message, kind).oneof_index = len(message.oneof_decl) - 1
                case "repeated":
                    self._field(message, self._next()).label = _FIELD.LABEL_REPEATED
                case _:
                    self._field(message, token)

    def _enum(self, enum: Any) -> None:
        enum.name = self._next()
        self._expect("{")
        while (token := self._next()) != "}":
            self._expect("=")
            enum.value.add(name=token, number=int(self._next()))
            self._expect(";")

    def _field(self, message: Any, kind: str) -> Any:
        field = message.field.add(name=self._next(), label=_FIELD.LABEL_OPTIONAL)
        self._expect("=")
        field.number = int(self._next())
        self._expect(";")
        _set_type(field, kind)
        return field

    def _map(self, message: Any) -> None:
        self._expect("<")
        kinds = [self._next()]
        self._expect(",")
        kinds.append(self._next())
        self._expect(">")
        field = self._field(message, "string")
        entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        for number, (name, kind) in enumerate(zip(("key", "value"), kinds, strict=True), start=1):
            _set_type(entry.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL), kind)
        field.label = _FIELD.LABEL_REPEATED
        _set_type(field, entry.name)


def _set_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:  # found from the innermost message outwards, as the language has it
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = kind


def _qualified(file: Any) -> None:
    """Write all types of messages as the registry wants them: from the package on."""
    enums = {enum.name for enum in file.enum_type}

    def walk(message: Any, path: str, known: dict[str, str]) -> None:
        mine = {**known, **{nested.name: f"{path}.{nested.name}" for nested in message.nested_type}}
        for field in message.field:
            if field.type == _FIELD.TYPE_MESSAGE:
                if field.type_name in enums:
                    field.type = _FIELD.TYPE_ENUM
                field.type_name = mine[field.type_name]
        for nested in message.nested_type:
            walk(nested, mine[nested.name], mine)

    top = {each.name: f".{file.package}.{each.name}" for each in (*file.message_type, *file.enum_type)}
    for message in file.message_type:
        walk(message, top[message.name], top)


def _made() -> Iterator[tuple[str, Any]]:
    reader = _Reader(Path(__file__).with_name(FILE).read_text(encoding="utf-8"))
    reader.read()
    _qualified(reader.file)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(reader.file.SerializeToString())
    found = pool.FindFileByName(reader.file.name)
    for name, descriptor in found.message_types_by_name.items():
        yield name, message_factory.GetMessageClass(descriptor)


MESSAGES: dict[str, Any] = dict(_made())
"""The class of each message by its name."""
