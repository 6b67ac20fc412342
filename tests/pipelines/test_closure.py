"""What a step reaches, and so what invalidates its cache."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.pipelines.cache import CodeKeys
from trimtab.pipelines.closure import Closure, ClosureFinder
from trimtab.pipelines.environment import Environment
from trimtab.pipelines.modules import ModuleIndex
from trimtab.pipelines.project import importing_from

PROJECT = {
    "loop.py": '''
        """A loop."""
        import os
        import numpy as np
        import polars as pl
        import trimtab as tt
        import pricing.rates as rates
        from helpers import clean, Cleaner as Tidier
        from pricing import discount
        import settings

        LIMIT = 10
        UNUSED = 1

        @tt.step(retries=1)
        def prepare(rows, scale=LIMIT):
            """Prepares."""
            total = [clean(row) for row in rows]  # a comment
            return Tidier(total).tidy() * rates.tax(scale) + discount()

        @tt.step
        def other(rows):
            from helpers import late
            return late(rows) + getattr(settings, "DEPTH")

        def unreachable(rows):
            return np.mean(rows)

        @tt.pipeline
        def training(window=1):
            return prepare(tt.dataset("x"))
    ''',
    "helpers.py": """
        OFFSET = 3
        FORGOTTEN = 4

        def clean(row):
            return row + OFFSET

        def late(row):
            return row

        class Basis:
            def tidy(self):
                return self.rows

        class Cleaner(Basis):
            def __init__(self, rows):
                self.rows = rows

            def spare(self):
                return None

        def unused():
            return FORGOTTEN
    """,
    "settings.py": """
        DEPTH = 3
        WIDTH = 4
        TABLE = {}
        TABLE["x"] = 1
    """,
    "pricing/__init__.py": """
        from .offers import discount
        from . import rates
    """,
    "pricing/offers.py": """
        from pricing import rates as r

        def discount():
            return r.BASE / 2
    """,
    "pricing/rates.py": """
        BASE = 0.2
        try:
            import missing_package
        except ImportError:
            missing_package = None

        def tax(x):
            return x * BASE if missing_package is None else missing_package.tax(x)
    """,
}


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def closure(folder: Path, step: str = "prepare", module: str = "loop") -> Closure:
    with importing_from(folder):
        return CodeKeys(folder, Environment()).closure(module, step)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make(tmp_path, PROJECT)


def edited(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("loop.py", "* rates.tax(scale)", "/ rates.tax(scale)"),
        ("loop.py", "scale=LIMIT", "scale=LIMIT + 0"),
        ("loop.py", "LIMIT = 10", "LIMIT = 11"),
        ("helpers.py", "OFFSET = 3", "OFFSET = 5"),
        ("helpers.py", "row + OFFSET", "row - OFFSET"),
        ("helpers.py", "return self.rows", "return self.rows[0]"),
        ("helpers.py", "self.rows = rows", "self.rows = list(rows)"),
        ("helpers.py", "class Cleaner(Basis)", "class Cleaner(Basis, object)"),
        ("pricing/rates.py", "BASE = 0.2", "BASE = 0.3"),
        ("pricing/rates.py", "missing_package = None", "missing_package = 0"),
        ("pricing/offers.py", "r.BASE / 2", "r.BASE / 3"),
        ("pricing/offers.py", "from pricing import rates as r", "import math as r"),
        ("pricing/__init__.py", "from .offers import discount", "from helpers import unused as discount"),
        ("loop.py", "from helpers import clean,", "from helpers import late as clean,"),
        ("settings.py", 'TABLE["x"] = 1', 'TABLE["x"] = 2'),
        ("settings.py", "DEPTH = 3", "DEPTH = 3\nprint(DEPTH)"),
    ],
)
def test_editing_what_a_step_reaches_changes_its_digest(project: Path, file: str, old: str, new: str) -> None:
    before = closure(project)
    assert not before.whole_project
    edited(project, file, old, new)
    assert closure(project).digest != before.digest


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("loop.py", "# a comment", "# another"),
        ("loop.py", '"""Prepares."""', '"""Prepares all.\n\n    Twice.\n    """'),
        ("loop.py", '"""A loop."""', ""),
        ("loop.py", "np.mean(rows)", "np.median(rows)"),
        ("loop.py", "UNUSED = 1", "UNUSED = 2"),
        ("loop.py", "window=1", "window=2"),
        ("loop.py", "late(rows)", "late(rows[0])"),
        ("loop.py", "retries=1", "retries=3, timeout=9"),
        (
            "loop.py",
            "total = [clean(row) for row in rows]",
            "total = [\n        clean(row)\n  for row in rows]",
        ),
        ("helpers.py", "FORGOTTEN = 4", "FORGOTTEN = 5"),
        ("helpers.py", "return FORGOTTEN", "return FORGOTTEN + 1"),
        ("helpers.py", "def late(row):\n    return row", "def late(row):\n    return 2"),
        ("settings.py", "WIDTH = 4", "WIDTH = 5"),
        ("settings.py", "DEPTH = 3", "DEPTH = 4"),
    ],
)
def test_editing_anything_else_does_not(project: Path, file: str, old: str, new: str) -> None:
    before = closure(project)
    edited(project, file, old, new)
    assert closure(project).digest == before.digest


def test_an_import_inside_a_function_is_followed(project: Path) -> None:
    before = closure(project, "other")
    assert "helpers:late" in before.reached
    assert "settings:DEPTH" in before.reached
    assert "settings:WIDTH" not in before.reached
    edited(project, "helpers.py", "def late(row):\n    return row", "def late(row):\n    return 2")
    assert closure(project, "other").digest != before.digest


def test_packages_count_by_what_the_reached_code_uses(project: Path) -> None:
    assert closure(project).packages == {"missing_package"}
    assert closure(project, "unreachable").external == ("numpy.mean",)
    assert {"numpy", "polars", "trimtab"} <= set(closure(project).imports)


def test_where_the_project_lies_does_not_count(tmp_path: Path) -> None:
    places = [make(tmp_path / name, PROJECT) for name in ("here", "there")]
    assert closure(places[0]).digest == closure(places[1]).digest


def test_the_same_function_in_two_modules_is_two_functions(tmp_path: Path) -> None:
    text = "def work(x):\n    return x\n"
    make(tmp_path, {"one.py": text, "two.py": text})
    assert closure(tmp_path, "work", "one").digest != closure(tmp_path, "work", "two").digest


@pytest.mark.parametrize(
    "body",
    [
        "importlib.import_module('plug' + x).run()",
        "import_module(x).run()",
        "eval(x)",
        "exec('import plugin')",
        "globals()[x]()",
        "__import__(x)",
        "sys.modules[x].run()",
        "star()",
        "plugin.absent()",
    ],
)
def test_where_code_cannot_be_followed_the_whole_project_counts(tmp_path: Path, body: str) -> None:
    make(
        tmp_path,
        {
            "loop.py": f"""
                import importlib, sys
                from importlib import import_module
                import plugin
                from stars import *
                def step(x):
                    return {body}
            """,
            "plugin.py": "def run():\n    return 1\n",
            "stars.py": "def star():\n    return 1\n",
        },
    )
    before = closure(tmp_path, "step")
    assert before.whole_project
    edited(tmp_path, "plugin.py", "return 1", "return 1  # a comment")
    assert closure(tmp_path, "step").digest == before.digest
    edited(tmp_path, "plugin.py", "return 1", "return 2")
    assert closure(tmp_path, "step").digest != before.digest


@pytest.mark.parametrize("body", ["getattr(plugin, x)()", "use(plugin)", "import_module('plugin').run()"])
def test_a_module_used_as_a_value_counts_whole(tmp_path: Path, body: str) -> None:
    make(
        tmp_path,
        {
            "loop.py": f"""
                from importlib import import_module
                import plugin
                def use(module):
                    return module
                def step(x):
                    return {body}
            """,
            "plugin.py": "LIMIT = 1\ndef run():\n    return 1\ndef walk():\n    return LIMIT\n",
        },
    )
    before = closure(tmp_path, "step")
    edited(tmp_path, "plugin.py", "LIMIT = 1", "LIMIT = 2")
    assert closure(tmp_path, "step").digest != before.digest


def test_a_name_that_is_local_reaches_nothing(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "loop.py": """
                def rows(): return 1
                def limit(): return 2
                def step(rows):
                    limit = [limit for limit in rows]
                    return (lambda limit: limit)(limit)
            """
        },
    )
    assert closure(tmp_path, "step").reached == ("loop:step",)


def test_a_module_that_runs_code_when_imported_counts_with_that_code(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "loop.py": """
                import setup_things
                def step(x):
                    return x
                if __name__ == '__main__':
                    step(1)
            """,
            "setup_things.py": "from registry import register\nregister(3)\ndef unused():\n    return 1\n",
            "registry.py": "ALL = []\ndef register(x):\n    ALL.append(x)\n",
        },
    )
    before = closure(tmp_path, "step")
    edited(tmp_path, "setup_things.py", "return 1", "return 2")
    edited(tmp_path, "loop.py", "step(1)", "step(2)")
    assert closure(tmp_path, "step").digest == before.digest
    edited(tmp_path, "registry.py", "ALL.append(x)", "ALL.append(2 * x)")
    assert closure(tmp_path, "step").digest != before.digest


def test_import_cycles_end(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "loop.py": "import left\ndef step(x):\n    return left.go(x)\n",
            "left.py": "import right\nfrom right import back\ndef go(x):\n    return right.go(x) + back(x)\n",
            "right.py": "import left\nfrom left import go as back\ndef go(x):\n    return left.go(x)\n",
        },
    )
    assert {"left:go", "right:go"} <= set(closure(tmp_path, "step").reached)


@given(
    calls=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14),
    homes=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    changed=st.integers(0, 7),
)
def test_exactly_the_functions_on_a_path_of_calls_count(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[int, int]],
    homes: list[int],
    changed: int,
) -> None:
    def write(folder: Path, values: dict[int, int]) -> None:
        for home in range(3):
            lines = [f"import m{other}" for other in range(3)]
            for function in (f for f in range(8) if homes[f] == home):
                called = "".join(f" + m{homes[to]}.f{to}(x)" for of, to in calls if of == function)
                lines.append(f"def f{function}(x):\n    return {values.get(function, 0)}{called}")
            (folder / f"m{home}.py").write_text("\n".join(lines) + "\n")

    reachable, pending = {0}, [0]
    while pending:
        function = pending.pop()
        for of, to in calls:
            if of == function and to not in reachable:
                reachable.add(to)
                pending.append(to)
    folder = tmp_path_factory.mktemp("graph")
    digests = []
    for values in ({}, {changed: 1}):
        write(folder, values)
        finder = ClosureFinder(ModuleIndex([str(folder), *sys.path]), lambda _: "")
        digests.append(finder.closure(f"m{homes[0]}", "f0").digest)
    assert (digests[0] != digests[1]) == (changed in reachable)


def test_versions_of_installed_packages_are_told_by_import_name(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "owners.json")
    for _ in range(2):  # found out, then remembered
        found = environment.versions({"sklearn", "polars", "json", "no_such_package"})
        assert set(found) == {"python", "scikit-learn", "polars"}
        environment = Environment(tmp_path / "owners.json")
