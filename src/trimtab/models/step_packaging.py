"""Packing a model with the steps before and behind it, once they are seen to do the same in another process.

What is checked, on rows that training had: that each row alone gives what all of them together give, and that
the packed code in a fresh process makes the very numbers that training's functions make here.
"""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.digest import digest_bytes, digest_json
from trimtab.errors import ConflictError, InvalidInputError, ModelCorruptError, TrimtabError
from trimtab.models.confined.predictor import ConfinedPredictor
from trimtab.models.confined.process import ConfinedProcess
from trimtab.models.encoding import Encoder
from trimtab.models.inputs import EXAMPLE_ROWS, frame_columns
from trimtab.models.packaging import example_bytes
from trimtab.models.packed import ALLOWED, Packed, write_files
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.runtimes.runtime import may_run_code
from trimtab.models.signature import Output
from trimtab.models.specification import (
    EXAMPLE_FILE,
    EXPRESSIONS_RUNTIME,
    SPECIFICATION_FILE,
    STEPS_RUNTIME,
    Specification,
)
from trimtab.models.steps.allowed import NotExpressionsError
from trimtab.models.steps.applied import Applied, Numbers, StepFailedOnRowsError
from trimtab.models.steps.document import (
    CODE_FOLDER,
    INNER_FOLDER,
    STEPS_FILE,
    PackedStep,
    Steps,
    inner_specification,
    read_steps,
)
from trimtab.models.steps.expressions import program_of
from trimtab.models.steps.literals import literal, value_of
from trimtab.models.steps.raw_columns import RawColumn, raw_columns, raw_signature
from trimtab.models.steps.source import Code, packed, plain_function
from trimtab.pipelines.environment import Environment

Step = Callable[..., Any]

MOST_ROWS = 2000
"""Rows that the fresh process is compared on; of more, so many spread evenly."""
ALONE = 50
"""Rows that are asked one by one."""
ROUNDING = 1e-12
"""How far, relatively, a row alone may lie from the same row among others: mathematical functions may be
computed otherwise for many values at once."""


class Inner(NamedTuple):
    """The model that is packed with steps."""

    specification: Specification
    content: bytes
    example: Mapping[str, Sequence[Any]]
    predictor: Predictor


class _Chosen(NamedTuple):
    """A step as it is given: the plain function, and its further arguments as literals."""

    function: Step
    arguments: dict[str, str]
    with_rows: bool

    @property
    def live(self) -> Step:
        """What is called here."""
        if not self.arguments:
            return self.function
        return functools.partial(self.function, **{n: value_of(text) for n, text in self.arguments.items()})


def with_steps(
    inner: Inner,
    rows: pl.DataFrame,
    before: Step | None,
    after: Step | None,
    *,
    columns: Sequence[str] | None,
    exclude: Collection[str],
    nullable: bool | Collection[str],
) -> Packed:
    """Pack a model with its steps; see `trimtab.Model.with_steps`."""
    if before is None and after is None:
        raise InvalidInputError("There is no step.", hint="Give before=, after=, or both.")
    raw = _raw_columns(inner.specification, rows, before, columns, exclude, nullable)
    names = [column.name for column in raw]
    given = rows.select(names)
    if not given.height:
        raise InvalidInputError("There are no rows to check the steps on.", hint="Give rows of training's.")
    chosen = {
        role: _chosen(role, step) for role, step in (("before", before), ("after", after)) if step is not None
    }
    code = packed(step.function for step in chosen.values())
    applied = Applied(
        inner.predictor,
        chosen["before"].live if "before" in chosen else None,
        chosen["after"].live if "after" in chosen else None,
        with_rows="after" in chosen and chosen["after"].with_rows,
    )
    example = _spread(given, EXAMPLE_ROWS)
    checked = _spread(given, MOST_ROWS)
    matrix = _check_here(applied, checked, raw)
    expected = applied.answers(example)
    if not np.isfinite(expected).all():
        raise InvalidInputError(
            f"The model with its steps answers its example rows with {expected.tolist()}.",
            hint="It must give a finite number for rows that it was trained on.",
        )
    made = _packed(inner, raw, chosen, code, example, expected)
    _check_apart(applied, made, checked, matrix)
    reason = _why_code(made, checked, matrix)
    if reason:
        return _as(made, STEPS_RUNTIME, {**made.specification.options, "needs_process": reason})
    return _as(made, EXPRESSIONS_RUNTIME, made.specification.options)


def _raw_columns(
    inner: Specification,
    rows: pl.DataFrame,
    before: Step | None,
    columns: Sequence[str] | None,
    exclude: Collection[str],
    nullable: bool | Collection[str],
) -> tuple[RawColumn, ...]:
    if inner.has_steps:
        raise ConflictError(
            "The model has steps already.", hint="Give both of them at once, to the model without any."
        )
    if columns is not None and inner.target in columns:
        raise InvalidInputError(
            f"The target '{inner.target}' is among the columns.", hint="No request has it; leave it out."
        )
    if before is None and columns is None:  # requests have what the model takes
        columns = inner.signature.names
        if not isinstance(nullable, bool):
            nullable = {*nullable, *(column.name for column in inner.signature.columns if column.nullable)}
    return raw_columns(rows, columns, {*exclude, inner.target}, nullable)


def _chosen(role: str, step: Step) -> _Chosen:
    further: dict[str, Any] = {}
    while isinstance(step, functools.partial):
        if step.args:
            raise InvalidInputError(
                "A step's further arguments are given by name.",
                hint=f"Write functools.partial({getattr(step.func, '__name__', 'step')}, NAME=VALUE).",
            )
        further = {**step.keywords, **further}
        step = step.func
    function = plain_function(step)
    arguments = {}
    for name, value in further.items():
        text = literal(value)
        if text is None:
            raise InvalidInputError(
                f"The argument '{name}' of '{function.__name__}' is a {type(value).__name__}, which cannot "
                "be packed.",
                hint="Give numbers, texts, truth values, or lists and dictionaries of them.",
            )
        arguments[name] = text
    open_ones = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty
        and each.name not in arguments
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    most = 1 if role == "before" else 2
    if not 1 <= len(open_ones) <= most or any(each.kind is each.KEYWORD_ONLY for each in open_ones):
        needed = ", ".join(each.name for each in open_ones) or "nothing"
        given = "the rows" if role == "before" else "the answers, and the rows if it wants them"
        raise InvalidInputError(
            f"The step '{function.__name__}' needs {needed}; what it is given are {given}.",
            hint=f"Give it the rest: functools.partial({function.__name__}, NAME=VALUE).",
        )
    return _Chosen(function, arguments, len(open_ones) == 2)


def _check_here(applied: Applied, rows: pl.DataFrame, raw: Sequence[RawColumn]) -> Numbers:
    """See that each row alone gives what it gives among others, and answer the inner model's matrix."""
    try:
        matrix = applied.matrix(rows)
        answers = applied.answers(rows)
        places = np.unique(np.linspace(0, rows.height - 1, ALONE).astype(np.int64)).tolist()
        alone = [(rows[place : place + 1], place) for place in places]
        for row, place in alone:
            _check_alike(applied, place, rows.height, applied.matrix(row)[0], matrix[place])
        for row, place in alone:
            if not _alike(applied.answers(row), answers[place : place + 1], _slack(applied)).all():
                raise _looks_around(place, rows.height, "its answer", applied.answers(row)[0], answers[place])
    except StepFailedOnRowsError as error:
        raise InvalidInputError(error.message, hint=error.hint) from error
    for column in raw:
        if column.nullable and not rows[column.name].null_count():
            without = rows[:1].with_columns(pl.lit(None, column.type).alias(column.name))
            try:
                applied.answers(without)
            except TrimtabError as error:
                raise InvalidInputError(
                    f"The column '{column.name}' may be missing, and then: {error.message}",
                    hint="Let the step fill it in, or do not declare the column nullable.",
                ) from error
    return matrix


def _check_alike(applied: Applied, place: int, rows: int, alone: Numbers, together: Numbers) -> None:
    odd = np.flatnonzero(~_alike(alone, together, ROUNDING))
    if odd.size:
        name = applied.inner.signature.names[int(odd[0])]
        raise _looks_around(place, rows, f"'{name}'", alone[odd[0]], together[odd[0]])


def _looks_around(place: int, rows: int, what: str, alone: float, together: float) -> InvalidInputError:
    return InvalidInputError(
        f"A step looks at more than the row that it is given (or at chance, or at the clock): of row {place} "
        f"alone {what} is {float(alone):.12g}, and among {rows} rows it is {float(together):.12g}.",
        hint="A request has one row. Compute means and the like in training, and pass them in: "
        "functools.partial(step, mean=rows['x'].mean()).",
    )


def _check_apart(applied: Applied, made: Packed, rows: pl.DataFrame, matrix: Numbers) -> None:
    """See that the packed code makes the same numbers in a fresh process, of what a request would carry."""
    columns = frame_columns(rows, made.specification.signature)
    with tempfile.TemporaryDirectory(prefix="trimtab-steps-") as folder:
        write_files(made, Path(folder))
        try:
            process = ConfinedProcess(Path(folder), ALLOWED)
            with ConfinedPredictor(process, made.specification) as apart:
                there = apart.prepared(columns, matrix.shape[1])
                answers = apart.predict(columns)
        except (ModelCorruptError, InvalidInputError) as error:
            raise InvalidInputError(
                f"The packed steps do not work in a fresh process: {error.message}",
                hint=error.hint or "See what they use beside their own code: files, the environment, state.",
            ) from error
    odd = np.argwhere(~_alike(there, matrix, 0.0))
    if odd.size:
        row, place = odd[0].tolist()
        name = applied.inner.signature.names[place]
        raise InvalidInputError(
            f"The packed steps make something else in a fresh process: '{name}' of row {row} is "
            f"{float(there[row, place]):.12g} there, and {float(matrix[row, place]):.12g} here.",
            hint="They depend on something beside their code and their rows, or on digits that no request "
            "carries (whole numbers above 2**53, times below a microsecond, NaN where null is meant).",
        )
    if not _alike(answers, applied.answers(rows), _slack(applied)).all():
        raise InvalidInputError("The packed step behind the model answers otherwise in a fresh process.")


def _why_code(made: Packed, rows: pl.DataFrame, matrix: Numbers) -> str:
    """Why the steps need Python where they are served; "" if they are expressions alone."""
    steps = read_steps(made.content)
    if steps.after is not None:
        return "a step stands behind it"
    assert steps.before is not None
    if may_run_code(made.specification.options["inner"]):
        return "the model itself needs one"
    try:
        program = program_of(made.files, steps.before)
        program.check(rows)
        prepared = program.apply(rows)
    except NotExpressionsError as error:
        return f"the step {error}"
    except pl.exceptions.PolarsError as error:
        return f"the step, read as expressions, raises {type(error).__name__}"
    within = Encoder(inner_specification(made.files).signature)
    columns = frame_columns(prepared, within.signature)
    if prepared.height == rows.height and _alike(within.matrix(columns, rows.height), matrix, 0.0).all():
        return ""
    return "the step, read as expressions, makes other numbers"


def _as(made: Packed, runtime: str, options: dict[str, str]) -> Packed:
    return made._replace(
        specification=msgspec.structs.replace(made.specification, runtime=runtime, options=options)
    )


def _alike(some: Numbers, others: Numbers, slack: float) -> NDArray[np.bool_]:
    return np.isclose(some, others, rtol=slack, atol=0.0, equal_nan=True)


def _slack(applied: Applied) -> float:
    return max(applied.inner.specification.tolerance, ROUNDING)


def _packed(
    inner: Inner,
    raw: tuple[RawColumn, ...],
    chosen: Mapping[str, _Chosen],
    code: Code,
    example: pl.DataFrame,
    expected: Numbers,
) -> Packed:
    stored = {
        role: PackedStep(module, name, step.arguments, step.with_rows)
        for (role, step), (module, name) in zip(chosen.items(), code.names, strict=True)
    }
    within = inner.specification
    files = {
        **{f"{CODE_FOLDER}/{path}": text for path, text in code.files.items()},
        f"{INNER_FOLDER}/{SPECIFICATION_FILE}": within.to_json(),
        f"{INNER_FOLDER}/{within.file}": inner.content,
        f"{INNER_FOLDER}/{EXAMPLE_FILE}": example_bytes(within.signature.names, inner.example),
    }
    steps = Steps(
        before=stored.get("before"),
        after=stored.get("after"),
        columns=raw,
        digest=digest_json({"code": code.digest, "steps": stored, "columns": raw}),
        files={path: digest_bytes(text) for path, text in files.items()},
        packages=_packages(code),
    )
    content = steps.to_json()
    signature = raw_signature(raw)
    specification = Specification(
        runtime=STEPS_RUNTIME,
        file=STEPS_FILE,
        file_digest=digest_bytes(content),
        signature=signature,
        output=Output(),
        target=within.target,
        expected=tuple(expected.tolist()),
        tolerance=within.tolerance,
        options={
            **within.options,
            "inner": within.runtime,
            **{role: str(step) for role, step in stored.items()},
        },
    )
    return Packed(specification, content, _plain(frame_columns(example, signature)), files)


def _packages(code: Code) -> dict[str, str]:
    versions = Environment().versions({*code.packages, "polars"})
    return {name: version for name, version in versions.items() if name != "python"}


def _plain(columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    lists = {name: np.asarray(v).tolist() if isinstance(v, np.ndarray) else v for name, v in columns.items()}
    return {
        name: [None if isinstance(value, float) and value != value else value for value in values]
        for name, values in lists.items()
    }


def _spread(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    return rows[np.unique(np.linspace(0, rows.height - 1, most).astype(np.int64)), :]
