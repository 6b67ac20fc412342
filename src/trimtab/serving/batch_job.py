"""Batch inference: all rows of a table through a model, to the same answers that its endpoint would give.

A job is divided into parts; its key is made from what decides its answers. What is finished of it stands in a
folder beside the output until all is, so that the same job asked for again, after whatever ended it, goes on
where it was and neither doubles nor loses a row.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import polars as pl

from trimtab.data.profiles import FeatureSummary, Profile
from trimtab.digest import digest_json
from trimtab.errors import AlreadyExistsError, ConflictError, InvalidInputError, unknown
from trimtab.serving.batch_files import Source
from trimtab.serving.batch_inputs import dataset_of, find_sources
from trimtab.serving.batch_model import ChosenModel
from trimtab.serving.batch_outputs import Output, find_output
from trimtab.serving.batch_pool import computed
from trimtab.serving.batch_worker import (
    OnError,
    Part,
    PartReport,
    Task,
    rejects_path,
    report_path,
)
from trimtab.serving.batch_writing import told, write_durably
from trimtab.workspace import Workspace

ROWS = 16_384
"""The rows of one model call: their matrix fits the processor's cache, and the call costs little."""

CALLS = 16
"""Model calls of one part, about."""

ANSWER_COLUMN = "prediction"

_FORMAT = 1
_JOB = "job.json"
_REPORT = "report.json"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `columns`: the input's that stand beside the answers; if None, `key` alone, or all
    if there is no key. `restart` throws away what an unfinished job has left for this output."""

    input: str
    output: str
    columns: tuple[str, ...] | None = None
    key: str | None = None
    answer: str = ANSWER_COLUMN
    on_error: OnError = "fail"
    rows: int = ROWS
    workers: int | None = None
    restart: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a job did. `resumed` of its `parts` were finished before; `already`: all was, output and all.
    `statistics` and `profile` are of `profiled` of the rows; `rejects` is the path of the rows left out."""

    job: str
    model: str
    input: str
    output: str
    rows: int
    answered: int
    rejected: int
    rejects: str | None
    parts: int
    resumed: int = 0
    already: bool = False
    profiled: int
    statistics: tuple[FeatureSummary, ...]
    profile: bytes


Progress = Callable[[float, int], None]
"""Is told the share of the work that is done, 0 to 1, and the rows so far."""


def predict_table(
    workspace: Workspace | None,
    model: ChosenModel,
    asked: Ask,
    progress: Progress = lambda share, rows: None,
) -> Report:
    """Run a batch job, or go on with it; answers the report of the first time if it is done already.

    Raises NotFoundError, InvalidInputError (a column or a row that the model does not take),
    AlreadyExistsError (the output stands, and is not this job's), ConflictError (an unfinished job of another
    kind stands for it, or one runs), UnavailableError, StorageFullError. None of these leaves anything under
    the output's name.
    """
    output = find_output(asked.output, workspace)
    if (name := dataset_of(asked.output)) is not None and name == dataset_of(asked.input):
        raise InvalidInputError("A dataset cannot be input and output of the same job.")
    sources = find_sources(asked.input, model.signature, workspace)
    schema = _schema(sources, asked)
    identities = [source.identity() for source in sources]
    job = _key(model, asked, output, identities, schema)
    if output.stands() and not output.published():
        return _done(output, job)
    with _prepared(output, job, restart=asked.restart):
        parts = _parts(sources, asked.rows * CALLS)
        if not output.published():
            reports, resumed = _compute(model, asked, sources, schema, output, parts, progress)
            if [source.identity() for source in sources] != identities:
                raise ConflictError(
                    f"The input '{asked.input}' changed while it was read.",
                    hint="Run it again with --restart once nobody writes there.",
                )
            report = _summed(job, model, asked, output, reports, resumed)
            _gather_rejects(output, reports)
            write_durably(output.work / _REPORT, msgspec.json.encode(report))
            try:
                output.publish(job, sorted(reports), list(schema))
            except OSError as error:
                raise told(error, output.title) from error
        report = msgspec.json.decode((output.work / _REPORT).read_bytes(), type=Report)
        write_durably(Path(f"{output.beside}.report.json"), _pretty(report))
        shutil.rmtree(output.work)
    return report


def _schema(sources: Sequence[Source], asked: Ask) -> dict[str, pl.DataType]:
    """The columns of the output, by the first source; raises InvalidInputError if others differ."""
    first = sources[0] if sources else None
    if first is None:
        raise InvalidInputError(f"The input '{asked.input}' has no rows.")
    if asked.columns is None and asked.key is None:
        kept = list(first.schema)
    else:
        kept = [name for name in dict.fromkeys((asked.key, *(asked.columns or ()))) if name is not None]
    for source in sources:
        for name in kept:
            if name not in source.schema:
                hint = unknown("column", name, source.schema).hint
                raise InvalidInputError(f"{source.title} has no column '{name}'.", hint=hint)
            if source.schema[name] != first.schema[name]:
                raise InvalidInputError(
                    f"The column '{name}' is {source.schema[name]} in {source.title} and "
                    f"{first.schema[name]} in {first.title}.",
                    hint="Give it one type, or leave it out with --columns.",
                )
    if asked.answer in kept:
        raise InvalidInputError(
            f"The input has a column '{asked.answer}' of its own.", hint="Name the answers with --as NAME."
        )
    types = {name: _plain(first.schema[name]) for name in kept}
    if asked.output.lower().endswith(".csv"):
        nested = next((name for name, dtype in types.items() if dtype.is_nested()), None)
        if nested is not None:
            raise InvalidInputError(
                f"The column '{nested}' is {types[nested]}, which CSV cannot hold.",
                hint="Leave it out with --columns, or write Parquet.",
            )
    return types | {asked.answer: pl.Float64()}


def _plain(dtype: pl.DataType) -> pl.DataType:
    """Categories as texts: each part has its own numbering of them."""
    return pl.String() if isinstance(dtype, pl.Categorical | pl.Enum) else dtype


def _key(
    model: ChosenModel, asked: Ask, output: Output, identities: Sequence[str], schema: dict[str, pl.DataType]
) -> str:
    """Names the job: the same for the same model, input and options, and for no other."""
    columns = {name: str(dtype) for name, dtype in schema.items()}
    options = [asked.key, asked.answer, asked.on_error, asked.rows, output.title, output.form]
    return digest_json([_FORMAT, model.digest, identities, columns, options])


def _done(output: Output, job: str) -> Report:
    """The report of the job that made the output; raises AlreadyExistsError if it was another."""
    try:
        made = msgspec.json.decode(Path(f"{output.beside}.report.json").read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError):
        made = None
    if made is None or made.job != job:
        raise AlreadyExistsError(
            f"'{output.title}' exists.", hint="Remove it first, or write to another place."
        )
    return msgspec.structs.replace(made, already=True)


@contextmanager
def _prepared(output: Output, job: str, *, restart: bool) -> Iterator[None]:
    """The folder of the job, held against others who run for the same output."""
    output.work.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(output.work, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConflictError(f"A job that writes '{output.title}' is running.") from None
    try:
        if restart:
            for path in output.work.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _begin(output, job)
        yield
    except BaseException:
        if output.work.exists() and not any((output.work / "reports").glob("*.json")):
            shutil.rmtree(output.work, ignore_errors=True)  # nothing of it is worth going on with
        raise
    finally:
        os.close(descriptor)


def _begin(output: Output, job: str) -> None:
    note = output.work / _JOB
    if note.exists():
        if msgspec.json.decode(note.read_bytes(), type=str) != job:
            raise ConflictError(
                f"An unfinished job with another model, input or options stands for '{output.title}'.",
                hint="Finish that one, or throw it away with --restart.",
            )
        return
    for folder in ("parts", "rejects", "reports"):
        (output.work / folder).mkdir(exist_ok=True)
    write_durably(note, msgspec.json.encode(job))


def _parts(sources: Sequence[Source], rows: int) -> list[Part]:
    spans = [(place, span) for place, source in enumerate(sources) for span in source.spans(rows)]
    return [Part(number, place, span) for number, (place, span) in enumerate(spans)]


def _compute(
    model: ChosenModel,
    asked: Ask,
    sources: Sequence[Source],
    schema: dict[str, pl.DataType],
    output: Output,
    parts: Sequence[Part],
    progress: Progress,
) -> tuple[dict[int, PartReport], int]:
    """The reports of all parts, and how many were finished before."""
    reports = {part.number: found for part in parts if (found := _standing(output.work, part.number))}
    resumed = len(reports)
    left = [part for part in parts if part.number not in reports]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(min(asked.workers or processors, len(left)), 1)
    task = Task(
        model=str(model.folder),
        name=model.model,
        confinement=model.confinement,
        threads=max(processors // workers, 1),
        sources=tuple(sources),
        kept=tuple(name for name in schema if name != asked.answer),
        key=asked.key,
        answer=asked.answer,
        schema=schema,
        on_error=asked.on_error,
        rows=asked.rows,
        form=output.form,
        folder=str(output.work.resolve()),
    )
    weights = {part.number: part.span.weight for part in parts}
    total = sum(weights.values()) or 1
    done = sum(weights[number] for number in reports)
    rows = sum(report.rows for report in reports.values())
    progress(done / total, rows)
    for report in computed(task, left, workers):
        reports[report.number] = report
        done += weights[report.number]
        rows += report.rows
        progress(done / total, rows)
    return reports, resumed


def _standing(work: Path, number: int) -> PartReport | None:
    try:
        return msgspec.json.decode(report_path(work, number).read_bytes(), type=PartReport)
    except FileNotFoundError:
        return None


def _summed(
    job: str,
    model: ChosenModel,
    asked: Ask,
    output: Output,
    reports: dict[int, PartReport],
    resumed: int,
) -> Report:
    ordered = [reports[number] for number in sorted(reports)]
    answered, rejected = sum(part.answered for part in ordered), sum(part.rejected for part in ordered)
    if not answered:
        raise InvalidInputError(
            f"The model takes none of the {rejected:,} rows of '{asked.input}'.",
            hint="Run it with --on-error fail --restart to see why." if rejected else "It has no rows.",
        )
    profile = Profile.merged(Profile.from_bytes(part.profile) for part in ordered)
    return Report(
        job=job,
        model=model.title,
        input=asked.input,
        output=output.title,
        rows=sum(part.rows for part in ordered),
        answered=answered,
        rejected=rejected,
        rejects=f"{output.beside}.rejects.ndjson" if rejected else None,
        parts=len(ordered),
        resumed=resumed,
        profiled=sum(part.profiled for part in ordered),
        statistics=tuple(profile.summary()),
        profile=profile.to_bytes(),
    )


def _gather_rejects(output: Output, reports: dict[int, PartReport]) -> None:
    found = [number for number in sorted(reports) if reports[number].rejected]
    if not found:
        return
    made = output.work / "rejects.ndjson"
    with made.open("wb") as file:
        for number in found:
            with rejects_path(output.work, number).open("rb") as part:
                shutil.copyfileobj(part, file)
        file.flush()
        os.fsync(file.fileno())
    made.replace(f"{output.beside}.rejects.ndjson")


def _pretty(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
