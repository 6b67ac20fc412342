"""What the pages tell a reader to do works, block by block."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.house.code_blocks import Reader, code_blocks, page_goes_on_from, page_needs
from tests.house.repository import ROOT, sources

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SERVICES_REQUIRED = os.environ.get("TRIMTAB_REQUIRE_SERVICES", "") not in {"", "0"}


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def readings() -> list[list[Path]]:
    """The pages to follow in one go: each that stands alone, and behind it those that go on from it."""
    begun: dict[Path, list[Path]] = {}
    continued = []
    for page in PAGES:
        earlier = page_goes_on_from(page.read_text())
        if earlier is None:
            begun[page] = [page]
        else:
            continued.append((page, (page.parent / earlier).resolve()))
    for page, first in continued:
        begun[first].append(page)
    return list(begun.values())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pages", readings(), ids=lambda pages: title(pages[0]))
def test_the_code_on_a_page_does_what_the_page_says(
    pages: list[Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    texts = {title(page): page.read_text() for page in pages}
    check_pages(texts, tmp_path, surroundings(set().union(*map(page_needs, texts.values())), request))


def surroundings(needs: set[str], request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables that pages with these needs are read with; skips where a program is missing."""
    variables = {}
    if "postgres" in needs:
        variables["DATABASE_URL"] = request.getfixturevalue("postgres_url")
    packages = {need for need in needs if need.startswith("python:")}
    for package in sorted(name.removeprefix("python:") for name in packages):
        pytest.importorskip(package, reason=f"The page uses {package}, which is not installed.")
    missing = sorted(tool for tool in needs - packages - {"postgres"} if shutil.which(tool) is None)
    if missing and SERVICES_REQUIRED:
        pytest.fail(f"TRIMTAB_REQUIRE_SERVICES is set, and {', '.join(missing)} is missing.", pytrace=False)
    if missing:
        pytest.skip(f"The page calls {', '.join(missing)}, which is not installed.")
    return variables


def test_every_link_between_pages_leads_to_a_file() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_the_reference_is_what_the_code_says() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "make_reference.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def commands() -> dict[str, set[str]]:
    """The commands by name, each with its subcommands."""
    main = importlib.import_module("trimtab.cli.main")
    root: Any = typer.main.get_command(main.app)
    context: Any = None  # these commands are found without one
    return {name: set(getattr(root.get_command(context, name), "commands", ())) for name in main.COMMANDS}


def test_every_command_that_a_message_or_a_page_names_is_there() -> None:
    known = commands()
    wrong = []
    for path in [*PAGES, *sources()]:
        for command, below in re.findall(r"(?<!from )\btrimtab ([a-z]+)(?: ([a-z]+))?", path.read_text()):
            if command in known and below and known[command] and below not in known[command]:
                wrong.append(f"{title(path)}: trimtab {command} {below}")
    assert not wrong


def check_pages(pages: dict[str, str], folder: Path, environment: dict[str, str] | None = None) -> None:
    """Follow the blocks of pages, by title, in order, and say where things went wrong."""
    reader = Reader(folder, environment)
    try:
        for name, text in pages.items():
            for block in code_blocks(text):
                problem = None
                try:
                    if block.runs:
                        reader.follow(block)
                except AssertionError as error:
                    problem = error
                if problem is not None:
                    pytest.fail(f"{name}, the block at line {block.line}: {problem}", pytrace=False)
    finally:
        reader.leave()


GOOD = """
# A page

```python
x = 6
```

Some text.

```python
open("answer", "w").write(str(x * 7))
```

```toml title="deep/settings.toml"
host = "here"
```

```console
$ cat answer
42
$ cat deep/settings.toml | \\
> wc -l
1
$ echo one two three
one ... three
$ echo 'over
> two lines' | wc -l
2
```

<!-- no-run: it would never end -->

```bash
sleep infinity
```

```bash
sleep 1000 &
```

```json
{"not": "run"}
```
"""


def test_blocks_run_in_order_in_one_folder(tmp_path: Path) -> None:
    check_pages({"page": GOOD}, tmp_path)
    assert (tmp_path / "answer").read_text() == "42"


@pytest.mark.parametrize(
    "block",
    [
        "```python\n1 / 0\n```",
        "```python\nraise SystemExit(1)\n```",
        "```bash\nfalse\necho never\n```",
        "```console\n$ echo other\nexpected\n```",
        "<!-- no-run: -->\n```bash\nfalse\n```",
    ],
)
def test_a_block_that_does_not_do_what_it_says_fails(block: str, tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="the block at line"):
        check_pages({"page": f"text\n\n{block}\n"}, tmp_path)
