"""The code blocks of a Markdown page, and how to run them as a reader would: in order, in one folder.

    ```python                 runs; blocks of one page share their names
    ```bash                   runs, and must succeed
    ```console                lines after "$ " run, with those after "> " that go on from them; what follows
                              is what they print ("..." stands for anything)
    ```python title="x.py"    is written to the file x.py (any language)

Any other language is not run. `<!-- no-run: REASON -->` right before a block keeps it from running. A block
inside an HTML comment runs unseen: what a person does by looking at the clock, it does by asking.

A page may say of itself `<!-- goes on from: OTHER.md -->`: it is followed in the same folder, with what runs
there, once the other page is done. `<!-- needs: TOOL -->` names a program that it calls, or "postgres", for
which an empty database stands ready at $DATABASE_URL, or a package that no lock has ("python:torch"). The
default ports are read as free ones.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN = {"python", "bash", "console"}
SECONDS = 100
PORTS = {"TRIMTAB_PORT": "8600", "TRIMTAB_GATEWAY_PORT": "8601"}
"""The default ports, and the settings that name others."""

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


def page_needs(page: str) -> set[str]:
    """What the page says that its blocks need beyond Trimtab."""
    return set(re.findall(r"^<!-- needs: (\S+) -->$", page, flags=re.MULTILINE))


def page_goes_on_from(page: str) -> str | None:
    """The page that this one begins at the end of, as it is linked; None if it stands alone."""
    found = re.search(r"^<!-- goes on from: (\S+) -->$", page, flags=re.MULTILINE)
    return None if found is None else found[1]


class Reader:
    """Somebody who follows pages in a folder. What they started is ended when they leave."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._session: subprocess.Popen[str] | None = None
        self._groups: list[int] = []
        self._ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        tools = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "COLUMNS": "110",
            **self._ports,
            **(environment or {}),
        }

    def follow(self, block: CodeBlock) -> None:
        """Do what the block says; raises AssertionError if it does not come out so."""
        text = block.text
        for name, port in PORTS.items():
            text = re.sub(rf"\b{port}\b", self._ports[name], text)
        if block.title is not None:
            path = self._folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif block.language == "python":
            self._run_python(block.line, text)
        elif block.language == "bash":
            self._run_shell(text)
        else:
            for command, expected in _prompts(text):
                self._expect(command, self._run_shell(command), expected)

    def leave(self) -> None:
        """End everything that was started, first by asking."""
        if self._session is not None:
            self._session.kill()
            self._session.communicate()
        for ending in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 20
            while self._groups and time.monotonic() < deadline:
                self._groups = [group for group in self._groups if _signalled(group, ending)]
                time.sleep(0.05)

    def _run_python(self, line: int, text: str) -> None:
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
        path = self._folder / f".block_{line}.py"
        path.write_text(text)
        self._session.stdin.write(f"{path}\n")
        self._session.stdin.flush()
        said = []
        for each in self._session.stdout:
            if each == "\0done\n":
                return
            said.append(each)
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
            try:
                status: int | str = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                status = f"none within {SECONDS} s"
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
        lines = part.splitlines(keepends=True)
        more = next((n for n, line in enumerate(lines) if n and not line.startswith("> ")), len(lines))
        command = lines[0] + "".join(line[2:] for line in lines[1:more])
        yield command, "".join(lines[more:])


def _signalled(group: int, number: signal.Signals) -> bool:
    """Whether the processes of a group were there to get a signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]
