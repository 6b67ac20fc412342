"""Requests that nobody should send, made out of good ones: request `n` of a seed is always the same.

Each begins as a request that the gateway answers, of any of its protocols; then some of it is made wrong: a
value in its JSON, a tensor's shape or bytes, its packing, its headers, the bytes on the wire.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.serving.number_models import WIDTH
from tests.serving.tiny_models import ROW

RIDES = "rides"
NUMBERS = "numbers"
MEGABYTES = 100
"""The size of the largest bodies."""


class Shaped(NamedTuple):
    """An HTTP request before it is written down."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Hostile(NamedTuple):
    """Bytes for a connection: `head`, and `tail` so many times. `whole` is false where more was announced
    than is sent, or where nobody can say what the server will make of it."""

    head: bytes
    tail: bytes = b""
    times: int = 0
    whole: bool = True


SHAPES: list[Any] = [
    [-1], [0], [1, -1], [2**31], [2**31 - 1, 2], [2**32, 2**32], [2**63], [2**64], [2**62, 4], [10**400],
    [], [1] * 2000, [3, 0], [-(2**63)], [1.5], ["1"], [None], None, "1", {}, [[1]], [2**20, 2**20, 2**20],
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, 1e308, -1e308, 5e-324, float("nan"),
    float("inf"), -float("inf"), "", "\0", "\ud800", "é" * 50, "x" * 70_000, "NaN", "1e999", [], {}, [[]],
    [{}], {"": None}, [None] * 50, {"b64": "!"}, {"b64": "////"}, "2011-13-45T99:99:99Z", "../../etc/passwd",
]  # fmt: skip
DATATYPES = [
    "FP16", "BF16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT64", "BOOL", "BYTES", "",
    "X",
]  # fmt: skip
LENGTHS = ["-1", "0", "1", "5", "99999999", "99999999999999999999", "x", "", " 3", "3,3", "+3", "0x3"]
ENCODINGS = ["gzip", "deflate", "br", "zstd", "identity", "GZIP", "gzip, gzip", "x", ""]
KINDS = [
    "application/json", "text/csv", "text/csv; header=absent", "application/octet-stream", "text/plain",
    "application/x-parquet", "multipart/form-data; boundary=", "application/json; charset=utf-16", ";", "",
]  # fmt: skip
TARGETS = [
    "/", "//", "/v2", "/v2x", "/v2/models//infer", "/v2/models/%00/infer", "/v2/models/%ff%fe/infer", "*",
    "/v2/models/rides/versions/-1/infer", "/v2/models/rides/versions/99999999999999999999/infer", "/%2e%2e/x",
    "/v1/models/", "/v1/models/rides:", "/v1/models/rides:predict:predict", "/metrics",
    "/v1/endpoints/" + "%41" * 2000 + "/predict", "/" + "a" * 5000, "/v2/repository/models/rides/unload",
    "/v2/repository/index", "/v1/status", "/v1/models/rides/labels/x:predict", "/openapi.json?" + "a=b&" * 99,
    "http://elsewhere/v2", "/endpoints/rides/invocations?%",
]  # fmt: skip
METHODS = ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "X" * 300, "P\0ST"]


def tensors(rows: int = 1) -> dict[str, Any]:
    """A request of the Open Inference Protocol."""
    kinds = {"x": "FP64", "season": "BYTES", "holiday": "BOOL"}
    return {
        "inputs": [
            {"name": name, "shape": [rows], "datatype": kind, "data": [ROW[name]] * rows}
            for name, kind in kinds.items()
        ]
    }


def posted(target: str, content: Any, **headers: str) -> Shaped:
    """A POST of JSON, or of bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Shaped("POST", target, {"content-type": "application/json", **headers}, body)


def good(chance: random.Random) -> Shaped:
    """A request that is answered with 200 or 202."""
    rows = chance.choice([1, 1, 1, 2, 2, 5, 200])
    if chance.random() < 0.3:
        return _numbers(chance, rows)
    names = list(ROW)
    cells = [list(ROW.values())] * rows
    match chance.randrange(10):
        case 0:
            return posted(f"/v1/endpoints/{RIDES}/predict", {"row": ROW, "key": "k"})
        case 1:
            return posted(f"/v1/endpoints/{RIDES}/predict", {"rows": [ROW] * rows, "request_id": "r"})
        case 2:
            return posted(f"/v1/endpoints/{RIDES}/feedback", [{"key": "k", "label": 1.5}])
        case 3:
            return posted(f"/v2/models/{RIDES}/infer", tensors(rows))
        case 4 | 5:
            matrix = struct.pack(f"<{rows * WIDTH}d", *[0.5] * (rows * WIDTH))
            return binary(f"/v2/models/{NUMBERS}/infer", [rows, WIDTH], matrix)
        case 6:
            return posted(f"/v1/models/{RIDES}:predict", {"instances": [ROW] * rows})
        case 7:
            columns = {name: [ROW[name]] * rows for name in names}
            return posted(f"/v1/models/{RIDES}:predict", {"inputs": columns})
        case 8:
            frame = {"dataframe_split": {"columns": names, "data": cells}}
            return posted(f"/endpoints/{RIDES}/invocations", frame)
        case _:
            csv = "\n".join([",".join(names), *["1.0,winter,false"] * rows]).encode()
            made = posted(f"/endpoints/{RIDES}/invocations", csv)
            return made._replace(headers={"content-type": "text/csv"})


def _numbers(chance: random.Random, rows: int) -> Shaped:
    """Rows of nothing but numbers, in JSON."""
    cells = [[place / 2 for place in range(WIDTH)] for _ in range(rows)]
    names = [f"c{place}" for place in range(WIDTH)]
    columns = {name: [row[place] for row in cells] for place, name in enumerate(names)}
    match chance.randrange(6):
        case 0:
            flat = [cell for row in cells for cell in row]
            tensor = {"name": "x", "shape": [rows, WIDTH], "datatype": "FP64"}
            tensor["data"] = chance.choice([cells, flat])
            return posted(f"/v2/models/{NUMBERS}/infer", {"inputs": [tensor]})
        case 1:
            return posted(f"/v1/models/{NUMBERS}:predict", {"instances": cells})
        case 2:
            return posted(f"/v1/models/{NUMBERS}:predict", {"inputs": columns})
        case 3:
            return posted(f"/v1/endpoints/{NUMBERS}/predict", {"columns": columns})
        case 4:
            records = [dict(zip(names, row, strict=True)) for row in cells]
            return posted(f"/v1/endpoints/{NUMBERS}/predict", {"rows": records})
        case _:
            split = {"columns": names, "data": cells}
            return posted(f"/endpoints/{NUMBERS}/invocations", {"dataframe_split": split})


def binary(target: str, shape: Any, raw: bytes, *, claimed: Any = None, datatype: str = "FP64") -> Shaped:
    """A request whose one tensor comes as bytes behind the JSON."""
    size = len(raw) if claimed is None else claimed
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return Shaped("POST", target, {"inference-header-content-length": str(len(head))}, head + raw)


def hostile(seed: int, number: int) -> Hostile:
    """Request `number` of a seed."""
    chance = random.Random(f"{seed}:{number}")
    shaped = good(chance)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        shaped = chance.choice(_MUTATIONS)(shaped, chance)
    return chance.choice(_WRITINGS)(shaped, chance)


# ------------------------------------------------------------------------------------- of what is said


def _value(shaped: Shaped, chance: random.Random) -> Shaped:
    """Some place in the JSON holds something else, or is gone."""
    try:
        content = json.loads(shaped.body)
    except (ValueError, RecursionError):
        return _bytes(shaped, chance)
    places = list(_places(content))
    if places:
        holder, place = chance.choice(places)
        if chance.random() < 0.15:
            del holder[place]
        else:
            holder[place] = chance.choice(SHAPES if place == "shape" else VALUES)
    return shaped._replace(body=json.dumps(content).encode())


def _places(content: Any) -> Any:
    entries: list[Any] = []
    if isinstance(content, dict):
        entries = list(content.items())
    elif isinstance(content, list):
        entries = list(enumerate(content))
    for place, inner in entries[:50]:
        yield content, place
        yield from _places(inner)


def _tensor(_shaped: Shaped, chance: random.Random) -> Shaped:
    """A tensor whose shape, datatype, size and bytes have nothing to do with each other."""
    raw = chance.randbytes(chance.choice([0, 1, 7, 8, 240, 241, 4096]))
    claimed = chance.choice([None, None, 0, -1, 8, 2**31, 2**63, 10**30, 1.5, "8", True, [8]])
    shape = chance.choice([*SHAPES, [1, WIDTH], [WIDTH], [1], [len(raw) // 8]])
    target = f"/v2/models/{chance.choice([RIDES, NUMBERS])}/infer"
    return binary(target, shape, raw, claimed=claimed, datatype=chance.choice(DATATYPES))


def _text_tensor(_shaped: Shaped, chance: random.Random) -> Shaped:
    """Texts behind their lengths, which may be any."""
    length = chance.choice([0, 1, 6, 2**31, 2**32 - 1, chance.randrange(2**32)])
    raw = struct.pack("<I", length) + chance.choice([b"", b"winter", chance.randbytes(6)])
    return binary(f"/v2/models/{RIDES}/infer", chance.choice([[1], [2], [2**40]]), raw, datatype="BYTES")


def _bomb(shaped: Shaped, chance: random.Random) -> Shaped:
    """Nested deeper than anybody reads."""
    opening = chance.choice([b"[", b'{"a":', b'[{"a":', b'{"inputs":['])
    depth = chance.choice([600, 5000, 200_000])
    body = opening * depth
    if chance.random() < 0.5:
        closing = {ord("["): b"]", ord("{"): b"}"}
        body += b"1" + b"".join(closing.get(each, b"") for each in reversed(opening)) * depth
    return shaped._replace(body=body)


def _twice(shaped: Shaped, chance: random.Random) -> Shaped:
    """The same name twice in one object."""
    name = chance.choice(
        ["inputs", "row", "rows", "shape", "datatype", "data", "name", "columns", "instances", "x"]
    )
    added = json.dumps({name: chance.choice(VALUES)}).encode()[:-1] + b","
    places = [place for place, byte in enumerate(shaped.body[:5000]) if byte == ord("{")]
    at = chance.choice(places) if places else 0
    return shaped._replace(body=shaped.body[:at] + added + shaped.body[at + 1 :])


def _bytes(shaped: Shaped, chance: random.Random) -> Shaped:
    """Some bytes of the body are others, gone, or there twice."""
    return shaped._replace(body=_damaged(shaped.body, chance))


def _damaged(some: bytes, chance: random.Random) -> bytes:
    made = bytearray(some)
    for _ in range(chance.choice([1, 2, 8])):
        at = chance.randrange(len(made) + 1)
        match chance.randrange(5):
            case 0:
                made[at : at + 1] = chance.randbytes(1)
            case 1:
                made[at:at] = chance.choice(
                    [b"\0", b"\xff", b'"', b"[", b"\r\n", b"\xed\xa0\x80", b"9" * 400]
                )
            case 2:
                del made[at : at + chance.choice([1, 4, 100])]
            case 3:
                made[at:at] = made[at : at + chance.choice([1, 16, 300])]
            case _:
                del made[at:]
    return bytes(made)


def _packed(shaped: Shaped, chance: random.Random) -> Shaped:
    """A body that is packed, and perhaps cut, damaged, far too large when unpacked, or not packed at all."""
    encoding = chance.choice(["gzip", "deflate"])
    pack: Callable[[bytes], bytes] = gzip.compress if encoding == "gzip" else zlib.compress
    body = shaped.body
    match chance.randrange(6):
        case 0:
            body = pack(body)
        case 1:
            body = pack(body)
            body = body[: chance.randrange(len(body))]
        case 2:
            body = _damaged(pack(body), chance)
        case 3:
            body = _bomb_packed(encoding)
        case 4:
            body = pack(pack(body))
        case _:
            body = pack(body) + chance.randbytes(20)
    named = encoding if chance.random() < 0.8 else chance.choice(ENCODINGS)
    return shaped._replace(headers={**shaped.headers, "content-encoding": named}, body=body)


_BOMBS: dict[str, bytes] = {}


def _bomb_packed(encoding: str) -> bytes:
    """256 megabytes of nothing, as little as they are when packed."""
    if encoding not in _BOMBS:
        packing = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
        _BOMBS[encoding] = b"".join([*(packing.compress(b" " * 2**20) for _ in range(256)), packing.flush()])
    return _BOMBS[encoding]


def _header(shaped: Shaped, chance: random.Random) -> Shaped:
    """A header that says something else."""
    name, values = chance.choice(
        [
            ("inference-header-content-length", LENGTHS),
            ("content-encoding", ENCODINGS),
            ("content-type", KINDS),
            ("accept", KINDS),
            ("accept-encoding", [*ENCODINGS, "gzip;q=x", ",", "gzip;q=0,deflate", "*" * 3000]),
            (
                "trimtab-event-time",
                ["", "now", "2011-01-01", "9999-12-31T23:59:59Z", "2011-01-01T00:00:00+99:00"],
            ),
            ("trimtab-key", ["", "k" * 5000, "é", "\t"]),
            ("authorization", ["", "Bearer", "Bearer x", "Basic !!"]),
            ("origin", ["null", "http://elsewhere", ""]),
            ("x-" + "y" * 3000, ["z" * 3000]),
        ]
    )
    return shaped._replace(headers={**shaped.headers, name: chance.choice(values)})


def _address(shaped: Shaped, chance: random.Random) -> Shaped:
    """Another address or method."""
    if chance.random() < 0.5:
        return shaped._replace(target=chance.choice(TARGETS))
    return shaped._replace(method=chance.choice(METHODS))


_MUTATIONS = [
    *[_value] * 6, *[_tensor] * 4, _text_tensor, _bomb, *[_twice] * 2, *[_bytes] * 4, *[_packed] * 3,
    *[_header] * 3, _address,
]  # fmt: skip


# ------------------------------------------------------------------------------------- of how it is sent


def _written(shaped: Shaped, *more: str) -> bytes:
    lines = [f"{shaped.method} {shaped.target} HTTP/1.1", "host: 127.0.0.1", *more]
    lines += [f"{name}: {value}" for name, value in shaped.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode(errors="replace")


def _plainly(shaped: Shaped, _chance: random.Random) -> Hostile:
    return Hostile(_written(shaped, f"content-length: {len(shaped.body)}", "connection: close") + shaped.body)


def _in_chunks(shaped: Shaped, chance: random.Random) -> Hostile:
    """In chunks, whose sizes may be wrong."""
    size = chance.choice([1, 10, 1000, 100_000])
    parts = [shaped.body[at : at + size] for at in range(0, min(len(shaped.body), 500 * size), size)]
    wrong = chance.random() < 0.3
    sizes = [
        chance.choice(["-1", "zz", "ffffffffffffffff", "0"]) if wrong else f"{len(part):x}" for part in parts
    ]
    chunks = [f"{size}\r\n".encode() + part + b"\r\n" for size, part in zip(sizes, parts, strict=True)]
    head = _written(shaped, "transfer-encoding: chunked", "connection: close")
    return Hostile(head + b"".join(chunks) + b"0\r\n\r\n", whole=not wrong)


def _misjudged(shaped: Shaped, chance: random.Random) -> Hostile:
    """A length that is not the body's, or two that differ."""
    announced = chance.choice([str(len(shaped.body) + 10), str(max(0, len(shaped.body) - 3)), *LENGTHS])
    more = [f"content-length: {announced}"]
    if chance.random() < 0.3:
        more.append(chance.choice(["transfer-encoding: chunked", f"content-length: {len(shaped.body)}"]))
    return Hostile(_written(shaped, *more) + shaped.body, whole=False)


def _on_the_wire(shaped: Shaped, chance: random.Random) -> Hostile:
    """Damaged anywhere, headers too."""
    return Hostile(_damaged(_plainly(shaped, chance).head, chance), whole=False)


def _followed(shaped: Shaped, chance: random.Random) -> Hostile:
    """Two requests at once on one connection."""
    first = _written(shaped, f"content-length: {len(shaped.body)}") + shaped.body
    return Hostile(first + _plainly(good(chance), chance).head)


def _abandoned(shaped: Shaped, chance: random.Random) -> Hostile:
    """Cut off somewhere."""
    said = _plainly(shaped, chance).head
    return Hostile(said[: chance.randrange(len(said))], whole=False)


_WRITINGS = [*[_plainly] * 12, *[_in_chunks] * 3, _misjudged, _on_the_wire, _followed, _abandoned]


def huge(chance: random.Random) -> Hostile:
    """A body of a hundred megabytes, announced or not."""
    shaped = posted(f"/v1/endpoints/{RIDES}/predict", b"")
    part = chance.choice([b" ", b"[", b'{"row":', b"\0"]) * 2**20
    part = part[: 2**20]
    if chance.random() < 0.5:
        chunk = f"{len(part):x}\r\n".encode() + part + b"\r\n"
        return Hostile(
            _written(shaped, "transfer-encoding: chunked", "connection: close"), chunk, MEGABYTES, False
        )
    length = f"content-length: {MEGABYTES * len(part)}"
    return Hostile(_written(shaped, length, "connection: close"), part, MEGABYTES)
