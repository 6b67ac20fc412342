"""Steps that are expressions alone: read without running anything, and refused if they are any more."""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tests.models import expression_steps
from tests.models.expression_steps import prepare

from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError, ModelCorruptError
from trimtab.models.confined.messages import ModelRaisedError
from trimtab.models.confined.predictor import check_servable, load_servable, needs_process
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.specification import (
    EXPRESSIONS_RUNTIME,
    SPECIFICATION_FILE,
    STEPS_RUNTIME,
    Specification,
)
from trimtab.models.steps.allowed import NotExpressionsError
from trimtab.models.steps.document import PackedStep, Steps, read_steps
from trimtab.models.steps.expressions import program_of
from trimtab.models.steps.raw_columns import RawColumn
from trimtab.models.steps.source import packed


def raw_rows(count: int = 300, seed: int = 1) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "at": [datetime(2011, 1, 1 + row % 28, row % 24, tzinfo=UTC) for row in range(count)],
            "place": random.choice(["harbour", "station", "elsewhere"], count),
            "low": random.normal(5.0, 3.0, count),
            "high": random.normal(15.0, 3.0, count),
            "riders": random.integers(0, 9, count),
            "cnt": random.normal(100.0, 9.0, count),
        }
    ).with_columns(pl.when(pl.col("riders") > 1).then(pl.col("low")).alias("low"))


STEP = functools.partial(prepare, mean=4.5)


def packed_with(step: Callable[..., Any], rows: pl.DataFrame) -> Model:
    made = step(rows)
    taken = inputs(made, [name for name in made.columns if name not in rows.columns or name == "riders"])
    booster = lightgbm.train(
        {"verbose": -1, "num_threads": 1}, lightgbm.Dataset(taken.matrix(made), rows["cnt"].to_numpy()), 10
    )
    return Model.lightgbm(booster, taken, target="cnt").with_steps(rows, before=step)


@pytest.fixture(scope="module")
def model() -> Model:
    return packed_with(STEP, raw_rows())


@pytest.fixture(scope="module")
def package(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "trips"
    model.save(folder)
    return folder


def read(source: str, *, arguments: dict[str, str] | None = None, **others: str) -> Any:
    files = {"code/steps.py": source.encode()}
    files.update({f"code/{name}.py": text.encode() for name, text in others.items()})
    return program_of(files, PackedStep("steps", "prepare", arguments or {}))


def test_the_packed_source_is_read_as_what_the_function_does() -> None:
    rows = raw_rows()
    code = packed([prepare])
    files = {f"code/{path}": content for path, content in code.files.items()}
    ((module, name),) = code.names
    program = program_of(files, PackedStep(module, name, {"mean": "4.5"}))
    assert program.apply(rows).equals(STEP(rows))


def test_a_gateway_serves_it_without_being_allowed_anything(model: Model, package: Path) -> None:
    assert model.specification.runtime == EXPRESSIONS_RUNTIME
    assert not needs_process(package)
    check_servable(package, model="any")
    rows = raw_rows(50, seed=2)
    columns = rows.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).drop("cnt")
    with load_servable(package, model="any") as predictor:
        made = predictor.predict(columns.to_dict(as_series=False))
        assert np.array_equal(made, model.predict(rows))
        row = {name: [columns[name][0]] for name in columns.columns}
        with pytest.raises(InvalidInputError, match="no time of type"):
            predictor.predict({**row, "at": ["noon"]})
        with pytest.raises(ModelRaisedError, match=r"step 'prepare' .* raised"):
            predictor.predict({**row, "riders": [99]})


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (expression_steps.by_python, "has `frame['place']`"),
        (expression_steps.by_branches, "has the statement `if"),
        (expression_steps.by_series, "has `frame"),
    ],
)
def test_a_step_that_is_more_runs_in_a_process_of_its_own_and_the_model_says_why(
    step: Callable[..., Any], reason: str
) -> None:
    model = packed_with(step, raw_rows())
    assert model.specification.runtime == STEPS_RUNTIME
    assert reason in model.specification.options["needs_process"]


POLARS = "import polars as pl\n"


def step_of(expression: str, *, before: str = "") -> str:
    return f"{POLARS}{before}\ndef prepare(frame):\n    return frame.with_columns(x={expression})\n"


@pytest.mark.parametrize(
    "source",
    [
        step_of("__import__('os').system('touch /tmp/hostile')"),
        step_of("open('/etc/passwd').read()"),
        step_of("pl.read_csv('/etc/passwd')"),
        step_of("pl.col('x').map_elements(print)"),
        step_of("pl.col('x').map_batches(print)"),
        step_of("pl.Expr.deserialize(b'')"),
        step_of("pl.col('x').pipe(print)"),
        step_of("pl.col('x').register_plugin(lib='evil.so')"),
        step_of("pl.plugins.register_plugin_function(plugin_path='evil.so')"),
        step_of("pl.sql('select 1')"),
        step_of("pl.col.__class__"),
        step_of("pl.col('x').__class__"),
        step_of("pl.col('x').meta.serialize()"),
        step_of("pl.col('x').__reduce__()"),
        step_of("pl.col('x')._pyexpr"),
        step_of("(lambda: 1)()"),
        step_of("[e for e in pl.col('x')]"),
        step_of("'{0.__class__}'.format(1)"),
        step_of("frame.map_rows(print)"),
        step_of("frame.write_csv('/tmp/hostile')"),
        step_of("os.system('x')", before="import os"),
        step_of("os.system('x')", before="from os import path as os"),
        step_of("system('x')", before="from os import system"),
        step_of("1", before="print('ran')"),
        step_of("1", before="x = [0]\nx[0] = 1\n"),
        step_of("1", before="class A: pass"),
        POLARS + "@print\ndef prepare(frame):\n    return frame\n",
        POLARS + "def prepare(frame, x=open('/tmp/hostile', 'w')):\n    return frame\n",
        POLARS + "def prepare(frame):\n    while True: pass\n",
        POLARS + "def prepare(frame):\n    return prepare(frame)\n",
        POLARS + "def prepare(frame):\n    return 3\n",
        POLARS + "def prepare(frame):\n    import os\n    return frame\n",
        "def prepare(frame)",
        "x" * 10 + "(" * 5000,
        f"x = {'-' * 100_000}1",
        f"x = {'-' * 900}1\n" + POLARS + "def prepare(frame):\n    return frame.with_columns(y=x)",
        f"x = 1{' + 1' * 900}\n" + POLARS + "def prepare(frame):\n    return frame.with_columns(*x)",
        f"x{'.y' * 5000} = 1",
    ],
)
def test_nothing_hostile_is_read_and_nothing_of_it_runs(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotExpressionsError):
        read(source)
    assert capsys.readouterr().out == ""
    assert not Path("/tmp/hostile").exists()


MANY_BITS = f"0x1{'0' * 100_000}"


def doubled(first: str, line: str, times: int = 64) -> str:
    lines = "".join(f"    {line}\n" for _ in range(times))
    return f"{POLARS}def prepare(frame):\n    x = {first}\n{lines}    return frame.with_columns(y=x)\n"


@pytest.mark.parametrize(
    "source",
    [
        doubled("pl.col('a')", "x = x + x"),
        doubled("pl.col('a')", "x = pl.coalesce(x, x)"),
        doubled("3", "x = x * x"),
        doubled("[1]", "x = x + x"),
        doubled("'ab'", "x = f'{x}{x}'"),
        doubled("2", "x = x ** x"),
        doubled("'ab'", "x = x * 99999"),
        doubled("[1]", "x = [x for y in [1, 2, 3]]\n    x = [*x, *x]"),
        step_of(f"pl.col('a') + ({MANY_BITS} % 7)"),
        step_of("pl.col('a') + A % B", before=f"A = {MANY_BITS}\nB = 0x1{'0' * 50_000}\n"),
        step_of(f"-{2**63} - 1"),
        step_of(f"{2**63} + {2**63}"),
        step_of(f"pl.lit({'a' * 6_000!r})"),
        step_of(f"pl.lit({b'a' * 6_000!r})"),
        step_of("'%099999999s' % pl.col('a')"),
        step_of("(b'%s' % pl.col('a')).replace(b'a', b'aaaaa')"),
        doubled("[" + "1, " * 2_000 + "]", "y = [*x]", 1_000),
        doubled("[" + "1, " * 2_000 + "]", "y = x + [1]", 1_000),
        doubled("[" + "1, " * 2_000 + "]", "y = pl.col('a').is_in(x)", 1_000),
        doubled("[" + "1, " * 2_000 + "]", "y = pl.col('a') == x", 1),
        doubled("[" + "1, " * 2_000 + "]", "y = [" + "*x, " * 1_000 + "]", 1),
        doubled(repr("a" * 4_000), "y = f'" + "{x}" * 10_000 + "'", 1),
        POLARS
        + "".join(f"def f{n}(x):\n    return f{n + 1}(x) + f{n + 1}(x)\n" for n in range(40))
        + "def f40(x):\n    return x\ndef prepare(frame):\n    return frame.with_columns(y=f0(1.0))\n",
    ],
)
def test_no_few_lines_keep_a_gateway_busy(source: str) -> None:
    with pytest.raises(NotExpressionsError):
        read(source)


@pytest.mark.parametrize(
    "source",
    [
        doubled("pl.col('a')", "x = x.abs()", 1_000),
        doubled("pl.col('a')", "x = x + 1", 1_000),
        doubled("pl.col('a')", "x = 1 + x", 1_000),
        doubled("pl.col('a')", "x = x.str.to_lowercase()", 1_000),
        doubled("pl.col('a')", "x = pl.coalesce([1, x])", 1_000),
        doubled("pl.col('a')", "x = pl.when(True).then(x).otherwise(1)", 1_000),
        doubled("pl.when(True).then(1)", "x = x.when(True).then(1)", 1_000),
        doubled("[1]", "x = [x]", 200),
        doubled("{'a': 1}", "x = {'a': x}", 200),
    ],
)
def test_what_would_overflow_the_stack_of_polars_is_not_given_to_it(source: str) -> None:
    with pytest.raises(NotExpressionsError, match="nested too deeply"):
        read(source)


def test_only_so_many_frames_are_made_one_of_the_other() -> None:
    source = step_of("1" + ").with_columns(a=pl.col('x')" * 19)
    assert read(source).apply(pl.DataFrame({"y": [0]})).columns == ["y", "x", "a"]
    with pytest.raises(NotExpressionsError, match="more than 20 frames"):
        read(step_of("1" + ").with_columns(a=pl.col('x')" * 20))
    with pytest.raises(NotExpressionsError, match="too large"):
        read(step_of("1, *[pl.col('y').alias(a) + 1 for a in [" + "'a', " * 2_000 + "]]"))


@pytest.mark.parametrize(
    "expression",
    [
        "pl.col('a') * 2 - 1.5 / pl.col('b')",
        "-pl.col('a') ** 2 % 3 // 1",
        "(pl.col('a') > 1) & ~(pl.col('b') <= 2) | (pl.col('c') == 'x')",
        "pl.when(pl.col('a') > 1).then(pl.lit('p')).when(pl.col('b') > 1).then(None).otherwise(pl.col('c'))",
        "pl.col('c').str.to_uppercase().str.slice(0, 1)",
        "pl.col('c').replace_strict({'x': 1, 'y': 2}, default=None, return_dtype=pl.Int8)",
        "pl.col('c').cast(pl.Enum(['x', 'y', 'zz'])).is_in(['x', 'y'])",
        "pl.max_horizontal('a', pl.col('b')).clip(0, 1).round(2).cast(pl.Float32, strict=False)",
        "pl.coalesce(pl.col('n'), pl.col('a'), 0.0).log1p()",
        "pl.col('a').is_between(0, 1, closed='left')",
    ],
)
def test_an_expression_is_built_as_python_would_build_it(expression: str) -> None:
    frame = pl.DataFrame(
        {"a": [0.5, 3.0, -1.0], "b": [1.0, 2.5, 9.0], "c": ["x", "y", "zz"], "n": [None, 1.0, 2.0]}
    )
    expected = frame.with_columns(x=eval(expression, {"pl": pl}))
    assert read(step_of(expression)).apply(frame).equals(expected, null_equal=True)


@pytest.mark.parametrize("value", [2**64, [1, {"a": -(2**63) - 1}], "a" * 6_000, {"a": "b" * 6_000}])
def test_no_argument_is_larger_than_what_a_column_holds(value: object) -> None:
    source = POLARS + "def prepare(frame, *, by):\n    return frame\n"
    with pytest.raises(NotExpressionsError, match="too l"):
        read(source, arguments={"by": repr(value)})
    assert read(source, arguments={"by": repr(2**64 - 1)})


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("pl.col('t') + pl.col('t')", "puts texts together"),
        ("(pl.col('a') + (pl.col('t') + '-' + pl.col('t')).str.len_chars())", "puts texts together"),
        ("pl.coalesce([None, pl.when(pl.col('t') + pl.col('t') == 'xx').then(1)])", "puts texts together"),
        ("pl.sum_horizontal('t', 't')", "puts texts together"),
        ("pl.lit(b'a') + pl.lit(b'b')", "puts texts together"),
        ("pl.col('t').str.replace('^.+$', '$0$0')", "parts of itself"),
        ("pl.col('t').str.replace('^.+$', '${0}', literal=False)", "parts of itself"),
        ("pl.col('t').str.replace('x', 'yy', n=9)", "more than once"),
        ("pl.col('t').str.replace('x', pl.col('t'))", "no plain text"),
    ],
)
def test_no_text_is_made_longer_by_itself(expression: str, reason: str) -> None:
    frame = pl.DataFrame({"t": ["x"], "a": [1.0]})
    with pytest.raises(NotExpressionsError, match=reason):
        read(step_of(expression)).check(frame)
    later = step_of(expression.replace("'t'", "'s'")).replace("frame.", "frame.rename({'t': 's'}).")
    with pytest.raises(NotExpressionsError, match=reason):
        read(later).check(frame)


@pytest.mark.parametrize(
    "expression",
    [
        "pl.col('a') + pl.col('a')",
        "pl.col('t') + '-'",
        "pl.col('t').str.replace('x', '$', literal=True)",
        "pl.col('at') + (pl.col('at') - pl.col('at'))",
        "pl.sum_horizontal(pl.col('a') > 0, 'a')",
        "(pl.col('a') > 0) + (pl.col('a') > 1)",
    ],
)
def test_other_sums_are_checked_and_applied(expression: str) -> None:
    frame = pl.DataFrame({"t": ["x"], "a": [1.0], "at": [datetime(2026, 1, 1, tzinfo=UTC)]})
    program = read(step_of(expression))
    program.check(frame)
    assert program.apply(frame).equals(frame.with_columns(x=eval(expression, {"pl": pl})))


METHODS = ["abs()", "fill_null(0)", "fill_nan(None)", "clip(-1, 1)", "sin()", "cast(pl.Float32)", "round(1)"]


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    form = draw(st.integers(0, 4)) if depth else 0

    def part() -> str:
        return draw(expressions(depth - 1))

    if form == 1:
        return f"({part()} {draw(st.sampled_from(['+', '-', '*', '/', '//', '%']))} {part()})"
    if form == 2:
        return f"(-{part()}).{draw(st.sampled_from(METHODS))}"
    if form == 3:
        when = (
            f"({part()} {draw(st.sampled_from(['<', '<=', '>', '>=', '==', '!=']))} 2) | ~{part()}.is_null()"
        )
        return f"pl.when({when}).then({part()}).otherwise({part()})"
    if form == 4:
        return f"pl.max_horizontal([{part()}, {part()}])"
    return draw(st.sampled_from(["pl.col('a')", "pl.col('b')", "pl.col('n')", "pl.lit(2)", "pl.lit(0.5)"]))


@settings(deadline=None)
@given(expressions())
def test_any_expression_is_read_as_python_reads_it(expression: str) -> None:
    frame = pl.DataFrame({"a": [0.5, 3.0, -1.0], "b": [1, 2, 9], "n": [None, 1.0, float("nan")]})
    try:
        expected = frame.with_columns(x=eval(expression, {"pl": pl}))
    except pl.exceptions.PolarsError:
        return
    assert_frame_equal(read(step_of(expression)).apply(frame), expected, check_exact=True)


def test_names_arguments_and_modules_are_followed() -> None:
    source = (
        "from __future__ import annotations\nimport math\nimport polars as pl\nimport more\n"
        "from more import rate\n"
        "NAMES: list[str] = ['a', 'b']\n"
        "def prepare(frame: pl.DataFrame, /, by: float = 2.0, *, names=NAMES) -> pl.DataFrame:\n"
        "    'What it does.'\n"
        "    made = [(pl.col(name) * rate(by) + math.pi).alias(f'{name}_rate') for name in names]\n"
        "    return frame.with_columns(*made).select([more.HOUR, 'a_rate']).rename({'a_rate': 'rate'})\n"
    )
    more = POLARS + "HOUR = pl.col('b').cast(pl.Int64).alias('hour')\ndef rate(by):\n    return 10 * by\n"
    made = read(source, arguments={"by": "3.0"}, more=more).apply(pl.DataFrame({"a": [1.0], "b": [2.0]}))
    assert made.to_dicts() == [{"hour": 2, "rate": 30.0 + math.pi}]


def changed(package: Path, folder: Path, path: str, content: bytes, steps: Steps | None = None) -> Path:
    """A copy of a package with a changed file, all of whose digests hold."""
    shutil.copytree(package, folder)
    (folder / path).write_bytes(content)
    steps = steps or read_steps((folder / "steps.json").read_bytes())
    digests = {**steps.files, path: digest_bytes(content)} if path in steps.files else steps.files
    content = msgspec.structs.replace(steps, files=digests).to_json()
    (folder / "steps.json").write_bytes(content)
    specification = msgspec.json.decode((folder / SPECIFICATION_FILE).read_bytes(), type=Specification)
    sealed = msgspec.structs.replace(specification, file_digest=digest_bytes(content))
    (folder / SPECIFICATION_FILE).write_bytes(sealed.to_json())
    return folder


def test_a_package_whose_code_was_made_hostile_is_refused_and_not_run(package: Path, tmp_path: Path) -> None:
    (module,) = package.glob("code/**/expression_steps.py")
    hostile = b"import pathlib\npathlib.Path('ran').touch()\n" + module.read_bytes()
    folder = changed(package, tmp_path / "hostile", str(module.relative_to(package)), hostile)
    with pytest.raises(ModelCorruptError, match="is not applied: it has the statement `pathlib"):
        load_servable(folder, model="any")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "column",
    [
        RawColumn("place", "Frob"),
        RawColumn("place", "Datetime[us,Nowhere/At_All]"),
        RawColumn("place", "Enum", values=("a", "a")),
        RawColumn("place", "Float64"),
        RawColumn("riders", "Int64"),
        None,
    ],
)
def test_a_package_with_impossible_columns_is_a_corrupt_model(
    package: Path, tmp_path: Path, column: RawColumn | None
) -> None:
    steps = read_steps((package / "steps.json").read_bytes())
    columns = (
        () if column is None else tuple(column if each.name == "place" else each for each in steps.columns)
    )
    steps = msgspec.structs.replace(steps, columns=columns)
    folder = changed(package, tmp_path / "odd", "steps.json", b"", steps)
    with pytest.raises(ModelCorruptError):
        load_servable(folder, model="any")


def test_a_package_without_its_inner_model_is_a_corrupt_model(package: Path, tmp_path: Path) -> None:
    steps = read_steps((package / "steps.json").read_bytes())
    files = {path: digest for path, digest in steps.files.items() if not path.endswith("model.txt")}
    steps = msgspec.structs.replace(steps, files=files)
    folder = changed(package, tmp_path / "hollow", "steps.json", b"", steps)
    with pytest.raises(ModelCorruptError):
        load_servable(folder, model="any")
