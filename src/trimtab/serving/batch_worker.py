"""A process that computes parts of a batch job: reads rows, asks the model, writes answers and statistics.

A part is finished once its report is written, which comes last; whoever is killed before leaves a draft that
nobody takes for more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import msgspec
import polars as pl
import pyarrow as pa

from trimtab.data.profiles import Profile
from trimtab.errors import InvalidInputError, TrimtabError
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.predictor import load_servable
from trimtab.models.inputs import frame_columns
from trimtab.models.runtimes.predictor import Predictor
from trimtab.monitoring.live_profiles import ANSWER
from trimtab.serving.batch_files import Rows, Source, Span
from trimtab.serving.batch_writing import DRAFT, Form, Table, told, write_durably

OnError = Literal["fail", "skip"]

PROFILED_ROWS = 2048
"""How many rows of one model call enter the profile, evenly spread; of smaller calls all do."""


class Task(msgspec.Struct, frozen=True):
    """What a worker does with every part. `model` is the folder of the one called `name`. `kept` are the
    input's columns that stand beside the answer, `rows` the rows of one model call; parts are written below
    `folder`."""

    model: str
    name: str
    confinement: Confinement
    threads: int
    sources: tuple[Source, ...]
    kept: tuple[str, ...]
    key: str | None
    answer: str
    schema: dict[str, pl.DataType]
    on_error: OnError
    rows: int
    form: Form
    folder: str


class Part(msgspec.Struct, frozen=True):
    """A share of one source, by its number in the whole job."""

    number: int
    source: int
    span: Span


class PartReport(msgspec.Struct, frozen=True):
    """What became of a part. `profile` is of `profiled` of its rows."""

    number: int
    rows: int
    answered: int
    rejected: int
    profiled: int
    profile: bytes


class Rejected(msgspec.Struct, frozen=True):
    """A row that the model did not take: the row counts from 0 in its source."""

    source: str
    row: int
    key: str | int | float | bool | None
    reason: str


def parts_folder(folder: Path) -> Path:
    """Where the finished parts of a job are."""
    return folder / "parts"


def part_path(folder: Path, number: int, form: Form) -> Path:
    """The rows of a part."""
    return parts_folder(folder) / f"part-{number:06}.{form}"


def rejects_path(folder: Path, number: int) -> Path:
    """The rejects of a part."""
    return folder / "rejects" / f"{number:06}.ndjson"


def report_path(folder: Path, number: int) -> Path:
    """The report of a part; it is there if the part is finished."""
    return folder / "reports" / f"{number:06}.json"


def serve_parts(connection: Connection, task: Task) -> None:
    """Compute the parts that come through a connection until it closes, which it does with its other side's
    process. What goes back is a report or an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    try:
        with load_servable(
            task.model, model=task.name, confinement=task.confinement, threads=task.threads
        ) as predictor:
            while True:
                part = connection.recv()
                connection.send(compute(task, predictor, part))
    except (EOFError, BrokenPipeError):
        return
    except (TrimtabError, OSError) as error:
        connection.send(error)


def compute(task: Task, predictor: Predictor, part: Part) -> PartReport:
    """Compute a part and write it. Raises InvalidInputError for a row that the model does not take, unless
    rows are skipped; StorageFullError."""
    folder = Path(task.folder)
    path = part_path(folder, part.number, task.form)
    draft = path.with_name(f"{path.name}.{os.getpid()}{DRAFT}")
    source = task.sources[part.source]
    rows = answered = profiled = 0
    profile = Profile(0, {})
    rejects: list[Rejected] = []
    try:
        with Table(draft, task.form, task.schema) as table:
            for read in source.read(part.span, _columns(task, source, predictor), task.rows):
                rows += read.frame.height
                frame, answers, refused = _answered(task, predictor, source, read)
                rejects += refused
                if not frame.height:
                    continue
                answered += frame.height
                table.write(_beside(task, frame, answers))
                sample = _sampled(frame, answers, predictor)
                profiled += sample.height
                profile = profile.merge(Profile.of(sample))
            table.finish()
        if rejects:
            write_durably(rejects_path(folder, part.number), _lines(rejects))
        draft.replace(path)
        report = PartReport(part.number, rows, answered, len(rejects), profiled, profile.to_bytes())
        write_durably(report_path(folder, part.number), msgspec.json.encode(report))
    except OSError as error:
        raise told(error, folder.parent) from error
    finally:
        draft.unlink(missing_ok=True)
    return report


def _columns(task: Task, source: Source, predictor: Predictor) -> list[str]:
    wanted = dict.fromkeys([*predictor.signature.names, *task.kept])
    return [name for name in wanted if name in source.schema]


def _beside(task: Task, frame: pl.DataFrame, answers: pl.Series) -> pl.DataFrame:
    # Column by column: a query of Polars takes a millisecond, which is as long as the model takes.
    kept = [frame.get_column(name) for name in task.kept]
    return pl.DataFrame([*(values.cast(task.schema[values.name]) for values in kept), answers])


def _answered(
    task: Task, predictor: Predictor, source: Source, read: Rows
) -> tuple[pl.DataFrame, pl.Series, list[Rejected]]:
    """The rows that the model takes, its answers, and the others."""
    frame = read.frame
    if not read.unreadable:
        try:
            return frame, _ask(task, predictor, frame), []
        except InvalidInputError:
            refused = dict(_refused(predictor, frame, 0))
            if not refused:  # each row is taken by itself: the model is at fault
                raise
    else:
        refused = dict(_refused(predictor, frame, 0)) | read.unreadable
    if task.on_error == "fail":
        row = min(refused)
        raise InvalidInputError(
            f"{source.title}, row {read.first_row + row}{_named(task, frame, row)}: {refused[row]}",
            hint="Mend it, or put such rows aside with --on-error skip. Rows count from 0, without a header.",
        )
    rejects = [
        Rejected(source.title, read.first_row + row, _key(task, frame, row), why)
        for row, why in sorted(refused.items())
    ]
    taken = frame.filter(~pl.int_range(frame.height, eager=True).is_in(list(refused)))
    return taken, _ask(task, predictor, taken), rejects


def _ask(task: Task, predictor: Predictor, frame: pl.DataFrame) -> pl.Series:
    if not frame.height:
        return pl.Series(task.answer, [], pl.Float64)
    answers = predictor.predict(frame_columns(frame, predictor.signature), ignore_unknown=True)
    return pl.Series(task.answer, answers)


def _refused(predictor: Predictor, frame: pl.DataFrame, first: int) -> Iterator[tuple[int, str]]:
    """The rows of a frame that the model does not take, and why: by halves, so that few cost little."""
    try:
        predictor.predict(frame_columns(frame, predictor.signature), ignore_unknown=True)
    except InvalidInputError as error:
        if frame.height == 1:
            yield first, error.message.replace(" in row 0", "")
            return
        middle = frame.height // 2
        yield from _refused(predictor, frame[:middle], first)
        yield from _refused(predictor, frame[middle:], first + middle)


def _named(task: Task, frame: pl.DataFrame, row: int) -> str:
    return "" if task.key is None else f" ({task.key} {frame[task.key][row]!r:.80})"


def _key(task: Task, frame: pl.DataFrame, row: int) -> str | int | float | bool | None:
    if task.key is None:
        return None
    value = frame[task.key][row]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _sampled(frame: pl.DataFrame, answers: pl.Series, predictor: Predictor) -> pl.DataFrame:
    names = [name for name in predictor.signature.names if name in frame.columns]
    apart = max(-(-frame.height // PROFILED_ROWS), 1)
    values = [*(frame.get_column(name) for name in names), answers.alias(ANSWER)]
    return pl.DataFrame([column.gather_every(apart) for column in values])


def _lines(rejects: list[Rejected]) -> bytes:
    return b"".join(msgspec.json.encode(rejected) + b"\n" for rejected in rejects)
