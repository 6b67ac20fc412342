"""What the pages tell a reader to do works, block by block."""

import re
from pathlib import Path

import pytest
from tests.house.code_blocks import Reader, code_blocks
from tests.house.repository import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_on_a_page_does_what_the_page_says(page: Path, tmp_path: Path) -> None:
    check_page(page.read_text(), tmp_path)


def test_every_link_between_pages_leads_to_a_file() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def check_page(page: str, folder: Path) -> None:
    """Follow a page's blocks in order, and say at which line of it things went wrong."""
    reader = Reader(folder)
    try:
        for block in code_blocks(page):
            if block.runs:
                try:
                    reader.follow(block)
                except AssertionError as error:
                    pytest.fail(f"the block at line {block.line}: {error}", pytrace=False)
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
    check_page(GOOD, tmp_path)
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
        check_page(f"text\n\n{block}\n", tmp_path)
