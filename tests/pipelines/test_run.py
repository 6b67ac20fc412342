"""Pipelines as they run: values, cache, failures, and what is kept of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from tests.pipelines.conftest import Write

from trimtab.data.contracts import Contract, field
from trimtab.data.datasets import Datasets
from trimtab.errors import InvalidInputError, NotFoundError, RefusedError, StepFailedError
from trimtab.pipelines.graph import pipeline
from trimtab.pipelines.project import import_project_object, importing_from
from trimtab.pipelines.run import load_output, run_pipeline, steps_of
from trimtab.pipelines.source import dataset
from trimtab.pipelines.step import step
from trimtab.store.database import Transaction
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

CHAIN = """
    import trimtab as tt
    from pathlib import Path
    from helpers import add

    @tt.step
    def start(n: int) -> dict:
        return {"n": n}

    @tt.step
    def more(x: dict, by: int = 1) -> dict:
        "Adds."
        with Path(MARKS).open("a") as marks:
            marks.write(f"more {by}\\n")
        return {"n": add(x["n"], by)}

    @tt.pipeline
    def chain(n: int = 1, by: int = 2):
        return more(more(start(n)), by)
"""
HELPERS = """
    def add(x, y):
        return x + y

    def unused():
        return 1
"""


class Marks:
    """A file that steps write a line into each time they really run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def taken(self) -> list[str]:
        """The lines since the last time, in order."""
        lines = sorted(self.path.read_text().split("\n")[:-1]) if self.path.exists() else []
        self.path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")


def with_marks(text: str, marks: Marks) -> str:
    return textwrap.dedent(text).replace("MARKS", repr(str(marks.path)))


def statuses(workspace: Workspace, run_id: str) -> dict[str, str]:
    return {found.node: found.status for found in steps_of(workspace, run_id)}


def status_of(workspace: Workspace, run_id: str) -> str:
    return Tracking(workspace).get_run(run_id).status


def test_values_go_from_step_to_step(workspace: Workspace, write: Write, marks: Marks) -> None:
    write(loop=with_marks(CHAIN, marks), helpers=HELPERS)
    result = run_pipeline(workspace, "loop:chain", params={"n": 5}).check()
    assert load_output(workspace, result.output()) == {"n": 8}
    run = Tracking(workspace).get_run(result.run_id)
    assert (run.status, run.name) == ("FINISHED", "chain")
    assert Tracking(workspace).params(result.run_id) == {"n": "5", "by": "2"}
    assert Tracking(workspace).tags(result.run_id)["trimtab.project"] == result.project


def test_a_second_run_runs_nothing(workspace: Workspace, write: Write, marks: Marks) -> None:
    write(loop=with_marks(CHAIN, marks), helpers=HELPERS)
    first = run_pipeline(workspace, "loop:chain").check()
    assert marks.taken() == ["more 1", "more 2"]
    second = run_pipeline(workspace, "loop:chain").check()
    assert marks.taken() == []
    assert set(statuses(workspace, second.run_id).values()) == {"cached"}
    assert second.outputs == first.outputs
    assert second.run_id != first.run_id


@pytest.mark.parametrize(
    ("file", "old", "new", "rerun"),
    [
        ("helpers", "return x + y", "return y + x", ["more 1", "more 2"]),
        ("helpers", "return 1", "return 2", []),
        ("helpers", "return x + y", "return x + y  # added", []),
        ("loop", '"Adds."', '"Adds one."', []),
        ("loop", "by: int = 2", "by: int = 3", ["more 3"]),
        ("loop", 'return {"n": n}', 'return {"n": n + 0}', []),  # the same value, so no more than that runs
    ],
)
def test_an_edit_reruns_what_it_reaches(
    workspace: Workspace, write: Write, marks: Marks, file: str, old: str, new: str, rerun: list[str]
) -> None:
    sources = {"loop": with_marks(CHAIN, marks), "helpers": HELPERS}
    write(**sources)
    run_pipeline(workspace, "loop:chain").check()
    marks.taken()
    assert old in sources[file]
    write(**{**sources, file: sources[file].replace(old, new)})
    run_pipeline(workspace, "loop:chain").check()
    assert marks.taken() == rerun


def test_another_parameter_reruns_what_depends_on_it(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=with_marks(CHAIN, marks), helpers=HELPERS)
    run_pipeline(workspace, "loop:chain").check()
    marks.taken()
    run_pipeline(workspace, "loop:chain", params={"by": 5}).check()
    assert marks.taken() == ["more 5"]


def test_steps_of_the_same_name_in_two_modules_are_two_steps(workspace: Workspace, write: Write) -> None:
    part = "import trimtab as tt\n@tt.step\ndef value(n: int = 1) -> int:\n    return WHAT\n"
    write(
        one=part.replace("WHAT", "n + 1"),
        two=part.replace("WHAT", "n + 2"),
        loop="""
            import trimtab as tt
            import one, two

            @tt.pipeline
            def both():
                return one.value(), two.value()
        """,
    )
    for _ in range(2):
        result = run_pipeline(workspace, "loop:both").check()
        assert [load_output(workspace, result.output(name)) for name in "01"] == [2, 3]
    assert list(statuses(workspace, result.run_id)) == ["one.value", "two.value"]


def test_independent_steps_run_side_by_side(workspace: Workspace, write: Write, tmp_path: Path) -> None:
    write(
        loop=f"""
            import time
            from pathlib import Path
            import trimtab as tt

            @tt.step(timeout=60)
            def meet(own: str, other: str) -> str:
                place = Path({str(tmp_path)!r})
                (place / own).touch()
                while not (place / other).exists():
                    time.sleep(0.01)
                return own

            @tt.pipeline
            def rendezvous():
                return meet("a", "b"), meet("b", "a")
        """
    )
    run_pipeline(workspace, "loop:rendezvous").check()


def test_the_same_call_made_twice_runs_once(workspace: Workspace, write: Write, marks: Marks) -> None:
    write(
        loop=with_marks(
            """
            import trimtab as tt

            @tt.step
            def mark(n: int) -> int:
                open(MARKS, "a").write("ran\\n")
                return n

            @tt.pipeline
            def twins():
                return mark(1), mark(1)
            """,
            marks,
        )
    )
    result = run_pipeline(workspace, "loop:twins").check()
    assert marks.taken() == ["ran"]
    assert sorted(statuses(workspace, result.run_id).values()) == ["cached", "finished"]


def test_tables_tuples_and_parts_of_results_are_passed_on(workspace: Workspace, write: Write) -> None:
    write(
        loop="""
            import polars as pl
            import numpy as np
            import trimtab as tt

            @tt.step
            def split(n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
                rows = pl.DataFrame({"x": range(n)})
                return rows[: n // 2], rows[n // 2 :]

            @tt.step
            def describe(parts: dict, large: np.ndarray) -> dict:
                return {"rows": {name: part.height for name, part in parts.items()}, "large": large.shape}

            @tt.step
            def noise() -> np.ndarray:
                return np.zeros(200_000)

            @tt.step
            def count(rows: dict) -> int:
                return sum(rows.values())

            @tt.pipeline
            def parts():
                train, test = split(7)
                return count(describe({"train": train, "test": test}, noise())["rows"])
        """
    )
    for _ in range(2):
        assert load_output(workspace, run_pipeline(workspace, "loop:parts").check().output()) == 7


FAILING = """
    import os, signal, sys, time
    import trimtab as tt

    @tt.step
    def fine() -> int:
        open(MARKS, "a").write("fine\\n")
        return 7

    @tt.step(retries=RETRIES, timeout=TIMEOUT)
    def bad(n: int) -> int:
        open(MARKS, "a").write("bad\\n")
        print("about to fail", flush=True)
        BODY

    @tt.pipeline
    def failing():
        return bad(fine())
"""


def failing(marks: Marks, body: str, *, retries: int = 0, timeout: float | None = None) -> str:
    return (
        with_marks(FAILING, marks)
        .replace("RETRIES", str(retries))
        .replace("TIMEOUT", str(timeout))
        .replace("BODY", body)
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('no good')", "ValueError: no good"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("os._exit(0)", "exited with code 0"),
        ("sys.exit(4)", "exited with code 4"),
        ("return (x for x in ())", "cannot be passed on"),
    ],
)
def test_a_failed_step_says_which_and_why(
    workspace: Workspace, write: Write, marks: Marks, body: str, reason: str
) -> None:
    write(loop=failing(marks, body))
    result = run_pipeline(workspace, "loop:failing")
    assert (result.status, result.failed_step) == ("failed", "loop.bad")
    assert result.error is not None
    fine, bad = steps_of(workspace, result.run_id)
    for part in ("Step 'loop.bad' failed", reason, f"n = {fine.output_digest}"[:19], "about to fail"):
        assert part in result.error
    assert (fine.status, bad.status, bad.attempts) == ("finished", "failed", 1)
    assert bad.error == result.error
    assert bad.log_digest is not None
    assert b"about to fail" in workspace.blobs.get(bad.log_digest)
    assert status_of(workspace, result.run_id) == "FAILED"
    with pytest.raises(StepFailedError, match=r"loop\.bad"):
        result.check()


def test_the_log_of_an_exception_starts_at_the_users_code(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=failing(marks, "return 1 / 0"))
    error = run_pipeline(workspace, "loop:failing").error
    assert error is not None
    assert "ZeroDivisionError" in error
    assert "return 1 / 0" in error
    assert "trimtab/pipelines/task.py" not in error


def test_a_step_that_hangs_is_killed(workspace: Workspace, write: Write, marks: Marks) -> None:
    write(loop=failing(marks, "time.sleep(1000)", timeout=0.5, retries=1))
    result = run_pipeline(workspace, "loop:failing")
    assert result.error is not None
    assert "took longer than 0.5 s and was killed" in result.error
    assert "tried 2 times" in result.error
    assert marks.taken() == ["bad", "bad", "fine"]


def test_a_step_is_tried_again_as_often_as_it_allows(
    workspace: Workspace, write: Write, marks: Marks, tmp_path: Path
) -> None:
    flaky = f"p = {str(tmp_path / 'count')!r}; n = len(open(p, 'a+').read() or open(p).read()); "
    body = flaky + "open(p, 'a').write('x')\n    if n < 2: raise OSError('try again')\n    return n"
    write(loop=failing(marks, body, retries=2))
    result = run_pipeline(workspace, "loop:failing").check()
    assert load_output(workspace, result.output()) == 2
    _, bad = steps_of(workspace, result.run_id)
    assert bad.attempts == 3
    assert bad.log_digest is not None
    assert b"--- attempt 3 ---" in workspace.blobs.get(bad.log_digest)


def test_after_a_failure_a_run_continues_from_the_cache(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=failing(marks, "raise ValueError"))
    run_pipeline(workspace, "loop:failing")
    assert marks.taken() == ["bad", "fine"]
    write(loop=failing(marks, "return n + 1"))
    result = run_pipeline(workspace, "loop:failing").check()
    assert marks.taken() == ["bad"]
    assert load_output(workspace, result.output()) == 8


def test_after_the_whole_process_was_killed_a_run_continues_from_the_cache(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=failing(marks, "time.sleep(1000)"))
    code = (
        "from pathlib import Path; from trimtab.workspace import Workspace; "
        "from trimtab.pipelines.run import run_pipeline; "
        f"run_pipeline(Workspace.open(Path({str(workspace.project)!r})), 'loop:failing', run_id='{'a' * 32}')"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not marks.path.exists() or "bad" not in marks.path.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert marks.taken() == ["bad", "fine"]
    write(loop=failing(marks, "return n + 1"))
    result = run_pipeline(workspace, "loop:failing", run_id="a" * 32).check()
    assert marks.taken() == ["bad"]
    assert statuses(workspace, "a" * 32) == {"loop.fine": "cached", "loop.bad": "finished"}
    assert load_output(workspace, result.output()) == 8


def test_other_steps_finish_when_one_fails(workspace: Workspace, write: Write, tmp_path: Path) -> None:
    write(
        loop=f"""
            import os
            import time
            from pathlib import Path
            import trimtab as tt

            @tt.step
            def slow() -> int:
                Path({str(tmp_path / "slow")!r}).touch()
                failed = Path({str(tmp_path / "failed")!r})
                while not failed.exists() or Path("/proc", failed.read_text()).exists():
                    time.sleep(0.01)
                return 1

            @tt.step
            def fails() -> int:
                while not Path({str(tmp_path / "slow")!r}).exists():
                    time.sleep(0.01)
                draft = Path({str(tmp_path / "draft")!r})
                draft.write_text(str(os.getpid()))
                draft.rename({str(tmp_path / "failed")!r})
                raise ValueError

            @tt.step
            def after(x: int) -> int:
                return x

            @tt.pipeline
            def mixed():
                return after(slow()), fails()
        """
    )
    result = run_pipeline(workspace, "loop:mixed")
    assert result.failed_step == "loop.fails"
    assert statuses(workspace, result.run_id) == {"loop.slow": "finished", "loop.fails": "failed"}


def test_a_step_without_cache_runs_every_time(workspace: Workspace, write: Write, marks: Marks) -> None:
    write(
        loop=with_marks(CHAIN, marks).replace("@tt.step\ndef more", "@tt.step(cache=False)\ndef more"),
        helpers=HELPERS,
    )
    for _ in range(2):
        run_pipeline(workspace, "loop:chain").check()
        assert marks.taken() == ["more 1", "more 2"]


def test_a_cached_value_that_is_gone_is_made_again(workspace: Workspace, write: Write, marks: Marks) -> None:
    write(loop=with_marks(CHAIN, marks), helpers=HELPERS)
    first = run_pipeline(workspace, "loop:chain").check()
    marks.taken()
    workspace.blobs.delete(first.outputs["output"])
    for expected in (["more 2"], []):
        again = run_pipeline(workspace, "loop:chain").check()
        assert marks.taken() == expected
        assert load_output(workspace, again.output()) == {"n": 4}


def test_steps_log_metrics_to_the_run(workspace: Workspace, write: Write) -> None:
    write(
        loop="""
            import trimtab as tt
            from trimtab.tracking.log import log

            @tt.step
            def learn() -> int:
                for epoch in range(3):
                    log(loss=1 / (epoch + 1), step=epoch)
                return 1

            @tt.pipeline
            def training():
                return learn()
        """
    )
    result = run_pipeline(workspace, "loop:training", experiment="bikes").check()
    assert Tracking(workspace).metrics(result.run_id)["loss"].value == pytest.approx(1 / 3)
    assert [run.id for run in Tracking(workspace).search(["bikes"]).runs] == [result.run_id]


ROWS = """
    from datetime import datetime
    import polars as pl
    import trimtab as tt

    class Trips(tt.Contract):
        at: datetime
        distance: float = tt.field(ge=0 LIMIT)

    @tt.step
    def total(rows: pl.DataFrame) -> float:
        open(MARKS, "a").write(f"{rows.height}\\n")
        return float(rows["distance"].sum())

    @tt.pipeline
    def training(window: tt.Window = tt.last(days=2)):
        return total(tt.dataset("trips").window(window))

    @tt.pipeline
    def all_of_it():
        return total(tt.dataset("trips"))
"""


class Trips(Contract):
    """Rows of the dataset that the pipelines below read."""

    at: datetime
    distance: float = field(ge=0)


def append(workspace: Workspace, days: range) -> None:
    start = datetime(2011, 8, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        {"at": [start + timedelta(days=day) for day in days], "distance": [float(d) for d in days]}
    )
    datasets = Datasets(workspace)
    datasets.create("trips", contract=Trips, time="at")
    datasets.append("trips", rows, key=f"{days}")


def test_a_window_of_a_dataset_is_read_as_of_the_runs_time(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=with_marks(ROWS.replace("LIMIT", ""), marks))
    append(workspace, range(10))
    as_of = datetime(2011, 8, 6, tzinfo=UTC)
    result = run_pipeline(workspace, "loop:training", as_of=as_of).check()
    assert load_output(workspace, result.output()) == 3 + 4
    assert result.dataset_versions == {"trips": 1}
    (found,) = steps_of(workspace, result.run_id)
    assert found.inputs["rows"].dataset == "trips"
    assert found.inputs["rows"].start == datetime(2011, 8, 4, tzinfo=UTC)
    whole = run_pipeline(workspace, "loop:all_of_it", as_of=as_of).check()
    assert load_output(workspace, whole.output()) == 0 + 1 + 2 + 3 + 4
    assert marks.taken() == ["2", "5"]


def test_a_version_can_be_named_and_is_what_the_cache_sees(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=with_marks(ROWS.replace("LIMIT", ""), marks))
    append(workspace, range(3))
    later = datetime(2011, 9, 1, tzinfo=UTC)
    first = run_pipeline(workspace, "loop:all_of_it", as_of=later).check()
    append(workspace, range(3, 5))
    second = run_pipeline(workspace, "loop:all_of_it", as_of=later).check()
    assert (first.dataset_versions, second.dataset_versions) == ({"trips": 1}, {"trips": 2})
    assert marks.taken() == ["3", "5"]
    again = run_pipeline(
        workspace, "loop:all_of_it", as_of=later + timedelta(days=9), dataset_versions={"trips": 1}
    ).check()
    assert again.outputs == first.outputs
    assert marks.taken() == []


def test_a_failed_step_names_the_version_that_it_read(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=with_marks(ROWS.replace("LIMIT", ""), marks).replace('"distance"].sum', '"length"].sum'))
    append(workspace, range(3))
    result = run_pipeline(workspace, "loop:training", as_of=datetime(2011, 8, 6, tzinfo=UTC))
    assert result.error is not None
    assert "rows = dataset 'trips' version 1 from 2011-08-04T00:00:00+00:00" in result.error
    assert "ColumnNotFoundError" in result.error


def test_a_pipelines_own_contract_is_checked(workspace: Workspace, write: Write, marks: Marks) -> None:
    text = ROWS.replace(" LIMIT", ", le=5").replace(
        'tt.dataset("trips"))', 'tt.dataset("trips", contract=Trips))'
    )
    write(loop=with_marks(text, marks))
    append(workspace, range(8))
    result = run_pipeline(workspace, "loop:all_of_it", as_of=datetime(2011, 9, 1, tzinfo=UTC))
    assert result.error is not None
    assert "ContractViolationError" in result.error
    assert "distance" in result.error
    assert marks.taken() == []


def test_an_unknown_dataset_is_refused_before_anything_runs(
    workspace: Workspace, write: Write, marks: Marks
) -> None:
    write(loop=with_marks(ROWS.replace("LIMIT", ""), marks))
    with pytest.raises(NotFoundError, match="There is no dataset 'trips'"):
        run_pipeline(workspace, "loop:training", experiment="none")
    assert [experiment.name for experiment in Tracking(workspace).experiments()] == []


def test_a_wrong_parameter_or_reference_is_refused(workspace: Workspace, write: Write) -> None:
    write(loop="import trimtab as tt\n@tt.pipeline\ndef empty():\n    return None\nother = 1\n")
    with pytest.raises(InvalidInputError, match="no parameter 'x'"):
        run_pipeline(workspace, "loop:empty", params={"x": 1})
    with pytest.raises(InvalidInputError, match="is not a pipeline"):
        run_pipeline(workspace, "loop:other")
    assert run_pipeline(workspace, "loop:empty").check().outputs == {}


def test_a_step_defined_in_a_function_is_refused(workspace: Workspace) -> None:
    @step
    def local() -> int:
        return 1

    @pipeline
    def training() -> int:
        return local()

    with pytest.raises(InvalidInputError, match="defined inside a function"):
        run_pipeline(workspace, training)


@step
def identity(x: object) -> object:
    return x


@pipeline
def imported(x: object = 3) -> object:
    return identity(x)


@pipeline
def of_rows() -> object:
    return identity(dataset("trips"))


def test_a_pipeline_of_an_imported_module_runs_from_there(workspace: Workspace) -> None:
    result = run_pipeline(workspace, imported, params={"x": (1, 2)}).check()
    assert load_output(workspace, result.output()) == (1, 2)
    append(workspace, range(2))
    rows = load_output(workspace, run_pipeline(workspace, of_rows).check().output())
    assert isinstance(rows, pl.DataFrame)
    assert rows.height == 2


def test_a_pickled_output_is_not_read_by_accident(workspace: Workspace) -> None:
    result = run_pipeline(workspace, imported, params={"x": Path}).check()
    with pytest.raises(RefusedError, match="step processes only"):
        load_output(workspace, result.output())
    assert load_output(workspace, result.output(), trusted_only=False) is Path


def test_a_pipeline_in_a_script_runs(workspace: Workspace, tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    script.write_text(
        textwrap.dedent(f"""
        from pathlib import Path
        import trimtab as tt
        from trimtab.pipelines.run import run_pipeline

        @tt.step
        def one() -> int:
            return 1

        @tt.pipeline
        def training():
            return one()

        if __name__ == "__main__":
            with tt.Workspace.open(Path({str(workspace.project)!r})) as workspace:
                print(run_pipeline(workspace, training).check().status)
        """)
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "finished", done.stderr


def test_a_run_that_breaks_off_is_marked_so(
    workspace: Workspace, write: Write, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(loop=with_marks(CHAIN, marks), helpers=HELPERS)

    def full(_data: bytes) -> str:
        raise OSError("the blob store is on fire")

    monkeypatch.setattr(workspace.blobs, "put", full)
    folder = write()
    chain: Any = import_project_object(folder, "loop:chain")
    with pytest.raises(OSError, match="on fire"), importing_from(folder):
        run_pipeline(workspace, chain, run_id="b" * 32)
    assert status_of(workspace, "b" * 32) == "FAILED"


def test_no_files_are_left_behind(workspace: Workspace, write: Write, marks: Marks) -> None:
    write(loop=failing(marks, "raise ValueError"))
    run_pipeline(workspace, "loop:failing")
    assert [path.name for path in workspace.cache.iterdir() if path.name.startswith("run-")] == []


def test_nothing_of_a_step_run_is_journaled(workspace: Workspace) -> None:
    def actions(tx: Transaction) -> int:
        return tx.journal("test.done", "test", "x")

    before = workspace.write(actions)
    run_pipeline(workspace, imported, experiment="known").check()
    run_pipeline(workspace, imported, experiment="known").check()
    assert workspace.write(actions) == before + 2  # the experiment, and this entry
