"""The code blocks of a Markdown page, and how to run them as a reader would: in order, in one folder.

    ```python                 runs; blocks of one page share their names
    ```bash                   runs, and must succeed
    ```console                lines after "$ " run; what follows each is what it prints ("..." stands for
                              anything)
    ```python title="x.py"    is written to the file x.py (any language)

Any other language is not run. `<!-- no-run: REASON -->` right before a block keeps it from running.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN = {"python", "bash", "console"}
SECONDS = 100

_FENCE = re.compile(
    r"^ *```(?P<language>\w+)(?P<rest>[^\n]*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)

_SESSION = """
import linecache, sys, traceback
names = {"__name__": "__main__"}
for path in sys.stdin:
    path = path.strip()
    try:
        exec(compile(open(path).read(), path, "exec"), names)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    print("\\0done", flush=True)
"""


@dataclass(frozen=True)
class CodeBlock:
    """One block: where it stands, its language, its text, the file that it shows, why it is not run."""

    line: int
    language: str
    text: str
    title: str | None
    not_run: str | None

    @property
    def runs(self) -> bool:
        """Whether a reader would run it, or write it to a file."""
        return self.not_run is None and (self.language in RUN or self.title is not None)


def code_blocks(page: str) -> list[CodeBlock]:
    """The blocks of a page, in order."""
    blocks = []
    for found in _FENCE.finditer(page):
        title = re.search(r'title="([^"]+)"', found["rest"])
        reason = re.search(r"<!-- no-run:\s*(\S[^>]*?)\s*-->$", page[: found.start()].rstrip())
        line = page.count("\n", 0, found.start()) + 1
        text = textwrap.dedent(found["text"])
        blocks.append(
            CodeBlock(line, found["language"], text, title and title[1], reason[1] if reason else None)
        )
    return blocks


class Reader:
    """Somebody who follows a page in a folder. What they started is ended when they leave."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session: subprocess.Popen[str] | None = None
        self._groups: list[int] = []
        tools = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "COLUMNS": "110",
        }

    def follow(self, block: CodeBlock) -> None:
        """Do what the block says; raises AssertionError if it does not come out so."""
        if block.title is not None:
            path = self._folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "python":
            self._run_python(block)
        elif block.language == "bash":
            self._run_shell(block.text)
        else:
            for command, expected in _prompts(block.text):
                self._expect(command, self._run_shell(command), expected)

    def leave(self) -> None:
        """End everything that was started."""
        if self._session is not None:
            self._session.kill()
            self._session.communicate()
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def _run_python(self, block: CodeBlock) -> None:
        if self._session is None:
            self._session = subprocess.Popen(
                [sys.executable, "-c", _SESSION],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            self._groups.append(self._session.pid)
        assert self._session.stdin
        assert self._session.stdout
        path = self._folder / f".block_{block.line}.py"
        path.write_text(block.text)
        self._session.stdin.write(f"{path}\n")
        self._session.stdin.flush()
        said = []
        for line in self._session.stdout:
            if line == "\0done\n":
                return
            said.append(line)
        raise AssertionError("".join(said))

    def _run_shell(self, text: str) -> str:
        # To a file, not a pipe: what a block leaves running in the background would hold a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            status = process.wait(SECONDS)
            output.seek(0)
            said = output.read()
        assert status == 0, f"$ {text}\nended with status {status}:\n{said}"
        return said

    def _expect(self, command: str, said: str, expected: str) -> None:
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if expected.strip() and not doctest.OutputChecker().check_output(expected, said, options):
            raise AssertionError(f"$ {command}\nexpected:\n{expected}\nsaid:\n{said}")


def _prompts(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it is said to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = re.sub(r"\\\n> ?", " ", part).partition("\n")
        yield command, expected
