"""Write docs/reference from the code: commands, Python names, settings, errors, HTTP routes.

python scripts/make_reference.py            # writes the pages
python scripts/make_reference.py --check    # writes nothing; exit status 1 if a page is not current
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import typer.main
from fastapi.routing import APIRoute
from typer.core import TyperArgument, TyperGroup, TyperOption

import trimtab
from trimtab import errors
from trimtab.config import FILE_NAME, Settings
from trimtab.models import gates
from trimtab.server import datasets, journal, loops, models, status
from trimtab.serving import invocations, open_inference, plain_json, tensorflow_serving
from trimtab.statistics.metrics import names as metric_names

cli = importlib.import_module("trimtab.cli.main")  # its package exports the function of that name
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
VALUES = {"--as-of": "TIME", "--at": "TIME", "--dir": "FOLDER", "--data": "FILE", "--override-by": "PERSON"}
"""How the value of an option is called where that is not the option's last word."""

MADE = "<!-- made by scripts/make_reference.py -->"


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    made = {
        "cli.md": _cli,
        "python.md": _python,
        "settings.md": _settings,
        "errors.md": _errors,
        "http.md": _http,
    }
    return {name: "\n".join([*_tidied(write()), ""]) for name, write in made.items()}


# -- commands ---------------------------------------------------------------------------------------------


def _cli() -> Iterator[str]:
    yield from _title("Command line", "`trimtab COMMAND --help` says the same.")
    yield from (cli.__doc__ or "").strip().splitlines()[2:]
    yield ""
    root: Any = typer.main.get_command(cli.app)
    context: Any = None  # these commands are found without one
    yield from _table(["command", ""], [(f"[`{n}`](#trimtab-{n})", text) for n, text in cli.COMMANDS.items()])
    for name in cli.COMMANDS:
        yield from _command(root.get_command(context, name), f"trimtab {name}", "##")


def _command(command: Any, name: str, level: str) -> Iterator[str]:
    yield ""
    yield f"{level} {name}"
    yield ""
    yield _sentences(command.help or "")
    if isinstance(command, TyperGroup):
        for sub in command.commands.values():
            yield from _command(sub, f"{name} {sub.name}", level + "#")
        return
    arguments = [each for each in command.params if isinstance(each, TyperArgument)]
    options = [each for each in command.params if isinstance(each, TyperOption) and each.name != "help"]
    usage = [_argument(each) for each in arguments] + (["[OPTIONS]"] if options else [])
    yield ""
    yield f"`{' '.join([name, *usage])}`"
    yield ""
    rows = [(f"`{_argument(each)}`", getattr(each, "help", None) or "") for each in arguments]
    rows += [(f"`{_option(each)}`", _option_help(each)) for each in options]
    yield from _table(["", ""], rows)


def _argument(argument: TyperArgument) -> str:
    name = (argument.metavar or argument.name or "").strip("[]").upper()
    name = f"{name}..." if argument.nargs == -1 and not name.endswith("...") else name
    return name if argument.required else f"[{name}]"


def _option(option: TyperOption) -> str:
    name = next(each for each in option.opts if each.startswith("--"))
    return name if option.is_flag else f"{name} {VALUES.get(name, name.rpartition('-')[2].upper())}"


def _option_help(option: TyperOption) -> str:
    notes = []
    if option.required:
        notes.append("required")
    if option.multiple:
        notes.append("may be given several times")
    if option.default not in (None, False, (), [], ""):
        notes.append(f"default `{option.default}`")
    text = option.help or ""
    return f"{text} ({', '.join(notes)})".strip() if notes else text


# -- Python -----------------------------------------------------------------------------------------------


def _python() -> Iterator[str]:
    yield from _title(
        "Python", "What `import trimtab as tt` offers. These names stay; what lies behind them may move."
    )
    for name in trimtab.__all__:
        value = getattr(trimtab, name)
        if inspect.ismodule(value):
            yield from _module(f"tt.{name}", value)
        else:
            yield from _object(f"tt.{name}", value, "##")
    yield ""
    yield "## Metrics"
    yield ""
    yield f"Built in, by name: {', '.join(f'`{name}`' for name in metric_names())}."
    yield "Anywhere a metric is wanted, a function of (labels, predictions) may stand."


def _module(name: str, module: Any) -> Iterator[str]:
    yield ""
    yield f"## {name}"
    yield ""
    if module is errors:
        yield "All errors, in one tree: see [errors](errors.md)."
        return
    yield from _doc(module)
    for member, value in vars(module).items():
        public = inspect.isclass(value) and value.__module__ == module.__name__ and member[0] != "_"
        if public and issubclass(value, gates.Gate) and value is not gates.Gate:
            yield from _object(f"{name}.{member}", value, "###")


def _object(name: str, value: Any, level: str) -> Iterator[str]:
    yield ""
    yield f"{level} {name}"
    yield ""
    yield "```text"
    yield _signature(name, value)
    yield "```"
    yield ""
    yield from _doc(value)
    if inspect.isclass(value):
        yield from _members(name, value, level + "#")


def _members(owner: str, kind: type, level: str) -> Iterator[str]:
    for member, value in vars(kind).items():
        if member.startswith("_"):
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(function):
            yield ""
            yield f"{level} {owner}.{member}"
            yield ""
            yield "```text"
            yield _signature(member, function)
            yield "```"
            yield ""
            yield from _doc(function)


def _signature(name: str, value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:
        return f"{name}(...)"
    drop = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    bare = [each.replace(annotation=_plain(each.annotation)) for each in drop]
    returns = inspect.Signature.empty if inspect.isclass(value) else _plain(signature.return_annotation)
    short = f"{name}{signature.replace(parameters=bare, return_annotation=returns)}"
    if len(short) <= 100:
        return short
    after = "" if returns is inspect.Signature.empty else f" -> {returns!r}"
    return f"{name}(\n    " + ",\n    ".join(_wrapped([str(each) for each in bare], bare)) + f",\n){after}"


class _Written:
    """An annotation that prints as it is written in the code."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _plain(annotation: Any) -> Any:
    if annotation is inspect.Signature.empty:
        return annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _Written(re.sub(r"\b(collections\.abc|typing)\.", "", text))


def _wrapped(parameters: list[str], of: list[inspect.Parameter]) -> list[str]:
    keyword = next((n for n, each in enumerate(of) if each.kind is each.KEYWORD_ONLY), None)
    return parameters if keyword is None else [*parameters[:keyword], "*", *parameters[keyword:]]


def _doc(value: Any) -> Iterator[str]:
    text = inspect.getdoc(value) or ""
    yield from _code_fenced(text)


def _code_fenced(text: str) -> Iterator[str]:
    """A docstring as Markdown: indented blocks as code that a reader sees but nobody runs."""
    for part in re.split(r"\n\s*\n", text):
        if part.startswith("    "):
            yield "```text"
            yield inspect.cleandoc("\n" + part)
            yield "```"
        else:
            yield re.sub(r"``([^`]+)``", r"`\1`", part)
        yield ""


# -- settings, errors, HTTP -------------------------------------------------------------------------------


def _settings() -> Iterator[str]:
    yield from _title(
        "Settings",
        f"In `{FILE_NAME}` under its own name, or in a variable `TRIMTAB_NAME`, which wins. "
        "`trimtab doctor --settings` shows what holds.",
    )
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append((f"`{name}`", default, field.description or ""))
    yield from _table(["setting", "default", "meaning"], rows)
    yield ""
    yield "Beside them, `TRIMTAB_ACTOR` names who acts, in the journal (by default the account)."


def _errors() -> Iterator[str]:
    yield from _title(
        "Errors and exit statuses",
        "Every error has a code that does not change, says what happened to what, and what to do next. "
        'Over HTTP it is `{"error": {"code", "message", "hint"}}` on the server\'s port, with the hint '
        "inside the message on the gateway's; with `--json` the command line writes the same.",
    )
    statuses = list(dict.fromkeys(re.findall(r"(\d) ([^·]+?)(?: ·|\.\Z|\.\n)", _status_words())))
    yield from _table(
        ["exit status", "meaning"], [(number, " ".join(what.split())) for number, what in statuses]
    )
    yield ""
    rows = [
        (f"`{kind.__name__}`", f"`{kind.code}`", str(kind.http_status), str(_exit_status(kind)), _first(kind))
        for kind in _tree(errors.TrimtabError)
    ]
    yield from _table(["error", "code", "HTTP", "exit", "meaning"], rows)


def _status_words() -> str:
    return (cli.__doc__ or "").partition("Exit statuses:")[2].strip() + "\n"


def _exit_status(kind: type[errors.TrimtabError]) -> int:
    return next((number for each, number in cli._STATUSES if issubclass(kind, each)), 1)


def _tree(kind: type[errors.TrimtabError]) -> Iterator[type[errors.TrimtabError]]:
    if kind is not errors.TrimtabError:
        yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tree(below)


def _http() -> Iterator[str]:
    yield from _title("HTTP", "Two ports. What asks for health (`/health`, `/ping`) never wants a token.")
    yield "## Gateway (port 8601)"
    yield ""
    rows = [
        ("GET", "/health", "200 once it is ready to answer"),
        ("GET", "/v1/status", "routes, the store, and what the prediction log took, refused or dropped"),
        *_listed_routes(plain_json, bodies=True),
        *_listed_routes(invocations),
        *_listed_routes(tensorflow_serving),
        ("GET", "/openapi.json", "an OpenAPI document of all endpoints"),
        *_listed_routes(open_inference),
    ]
    yield from _table(["", "path", ""], [(method, f"`{path}`", what) for method, path, what in rows])
    yield ""
    yield "What `predict` takes and answers, and what `feedback` takes:"
    for kind in (plain_json.PredictRequest, plain_json.PredictResponse, plain_json.Feedback):
        yield ""
        yield f"**{kind.__name__}.** {_sentences(inspect.getdoc(kind) or '')}"
        yield ""
        fields = [
            (f"`{each.name}`", _field_type(each), _field_default(each))
            for each in msgspec.structs.fields(kind)
        ]
        yield from _table(["field", "type", "default"], fields)
    yield ""
    yield "## Server (port 8600)"
    yield ""
    yield "`/docs` on that port describes bodies and answers."
    yield ""
    yield from _table(["", "path", ""], [(m, f"`{path}`", text) for m, path, text in _server_routes()])


def _field_type(field: Any) -> str:
    return f"`{_short(field.type)}`".replace("|", "\\|")


def _short(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    text = re.sub(r"typing\.Annotated\[(\w+), [^\]]*\]", r"\1", text)
    return re.sub(r"typing\.|datetime\.(?=datetime)", "", text).replace("NoneType", "None")


def _field_default(field: Any) -> str:
    return (
        "required"
        if field.default is msgspec.NODEFAULT
        else ""
        if field.default is None
        else f"`{field.default}`"
    )


def _listed_routes(protocol: ModuleType, *, bodies: bool = False) -> Iterator[tuple[str, str, str]]:
    """The routes that a protocol's own description lists; `bodies` if it tells what a POST takes."""
    lines = [line[4:] for line in (protocol.__doc__ or "").splitlines() if line.startswith("    ")]
    route = ("", "", "")
    for line in lines:
        found = re.match(r"(GET|POST)\s+(\S+)\s+(.*)", line)
        if found is not None:
            if route[0]:
                yield route
            what = f"`{found[3].strip()}`" if bodies and found[1] == "POST" else found[3]
            path = re.sub(r"\b(NAME|LABEL|N)\b", lambda word: f"{{{word[0].lower()}}}", found[2])
            route = (found[1], path, what.replace("|", "\\|"))
        else:
            route = (route[0], route[1], f"{route[2]} {line.strip()}")
    yield route


def _server_routes() -> Iterator[tuple[str, str, str]]:
    yield "GET", "/", "the status page"
    yield "GET", "/health", "200 once this server answers"
    for module in (status, datasets, loops, models, journal):
        for route in module.router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                text = _sentences(inspect.getdoc(route.endpoint) or "")
                for method in sorted(route.methods or ()):
                    yield method, route.path, text.replace("|", "\\|")


# -- Markdown ---------------------------------------------------------------------------------------------


def _title(title: str, text: str) -> Iterator[str]:
    yield MADE
    yield ""
    yield f"# {title}"
    yield ""
    yield text
    yield ""


def _table(columns: list[str], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(columns)} |"
        yield f"|{'---|' * len(columns)}"
        for row in rows:
            yield f"| {' | '.join(' '.join(str(cell).split()) for cell in row)} |"


def _sentences(text: str) -> str:
    return " ".join(text.split())


def _first(kind: type) -> str:
    return _sentences(inspect.getdoc(kind) or "")


def _tidied(lines: Iterator[str]) -> Iterator[str]:
    """Without blanks at line ends, and never two empty lines in a row."""
    before = "-"
    for line in (each for block in lines for each in block.split("\n")):
        line = line.rstrip()
        if line or before:
            yield line
        before = line


def main(arguments: list[str], *, say: Callable[[str], None] = print) -> int:
    """Write the pages, or check them; answers the exit status."""
    made = pages()
    if arguments == ["--check"]:
        old = [name for name, text in made.items() if _read(FOLDER / name) != text]
        old += [path.name for path in FOLDER.glob("*.md") if path.name not in made]
        if old:
            say(f"docs/reference is not current: {', '.join(old)}. Run: python scripts/make_reference.py")
        return 1 if old else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (FOLDER / name).write_text(text)
        say(f"wrote {FOLDER / name}")
    return 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
