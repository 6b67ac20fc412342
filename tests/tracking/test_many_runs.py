"""Searches among many runs: every plan begins at an index, and every order can be paged to its end."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from trimtab.errors import InvalidInputError
from trimtab.store.database import Transaction
from trimtab.tracking import experiments, run_search
from trimtab.tracking.run_order import token_of
from trimtab.tracking.run_search import FoundRuns
from trimtab.workspace import Workspace

SECOND = 1_000_000
EPOCH = 1_700_000_000 * SECOND

KEYS = {"loss": 0, "acc": 1, "sparse": 2}
"""Metrics, and the place of those that a run in a hundred lacks."""


def fill(workspace: Workspace, count: int) -> int:
    """Make `count` runs by the database's own means; answers the id of their experiment."""
    postgres = workspace.database.engine.dialect.name == "postgresql"
    if postgres:
        series, run_id = "generate_series(1, :count) AS s(i)", "lpad(to_hex(i), 32, '0')"
    else:
        numbers = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < :count)"
        series, run_id = f"({numbers} SELECT i FROM s) AS s", "printf('%032x', i)"

    def work(tx: Transaction) -> int:
        def run(statement: str, **values: object) -> None:
            tx.execute(text(f"{statement} FROM {series}"), {"count": count, **values})

        experiment = experiments.get_or_create(tx, "many").id
        run(
            "INSERT INTO runs (number, id, experiment_id, name, status, lifecycle, actor, started_at)"
            f" SELECT i, {run_id}, :experiment, 'run-' || i, 'FINISHED', 'active', 'ann',"
            f" {EPOCH} + i * CAST({SECOND} AS BIGINT)",
            experiment=experiment,
        )
        for number, (key, lacking) in enumerate(KEYS.items(), start=1):
            tx.execute(
                text("INSERT INTO metric_keys (id, name) VALUES (:id, :name)"), {"id": number, "name": key}
            )
            run(
                "INSERT INTO latest_metrics (run, key, value, step, at)"
                " SELECT i, :key, CASE WHEN i % 1000 = 7 THEN NULL ELSE"
                f" ((i * {7919 + 2 * number}) % 1009) / 1009.0 END, 1, 1",
                key=number,
            )
            tx.execute(
                text("DELETE FROM latest_metrics WHERE key = :key AND run % 100 = :lacking"),
                {"key": number, "lacking": lacking},
            )
        for key, value in {"lr": "(i * 17) % 50", "seed": "i"}.items():
            run(f"INSERT INTO params (run, key, value) SELECT i, :key, ({value}) || ''", key=key)
        for key, value in {"team": "(i * 3) % 5", "ticket": "(i * 7) % 100003"}.items():
            run(f"INSERT INTO run_tags (run, key, value) SELECT i, :key, 't' || ({value})", key=key)
        return experiment

    return workspace.write(work)


@contextmanager
def statements(workspace: Workspace) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent meanwhile."""
    sent: list[tuple[str, Any]] = []

    def take(_c: object, _u: object, statement: str, values: Any, *_: object) -> None:
        sent.append((statement, values))

    event.listen(workspace.database.engine, "before_cursor_execute", take)
    yield sent
    event.remove(workspace.database.engine, "before_cursor_execute", take)


def search(workspace: Workspace, experiment: int, **asked: Any) -> FoundRuns:
    with workspace.read() as connection:
        return run_search.search(connection, [experiment], **asked)


def plans(workspace: Workspace, experiment: int, **asked: Any) -> list[str]:
    """How SQLite goes about a search."""
    with statements(workspace) as sent:
        search(workspace, experiment, **asked)
    found: list[str] = []
    with workspace.read() as connection:
        for statement, values in sent:
            if statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                found += [row.detail for row in rows]
    return found


SEARCHES: list[dict[str, Any]] = [
    {},
    {"lifecycle": None},
    {"lifecycle": "deleted"},
    {"order_by": ["start_time ASC"]},
    {"order_by": ["metrics.acc DESC"]},
    {"order_by": ["metrics.loss", "metrics.acc DESC"]},
    {"order_by": ["params.lr"]},
    {"order_by": ["params.seed DESC"]},
    {"order_by": ["tags.team"]},
    {"order_by": ["run_name"]},
    {"filter": "metrics.loss < 0.3"},
    {"filter": "metrics.loss < 0.001"},
    {"filter": "metrics.loss < 0.001", "order_by": ["metrics.acc"]},
    {"filter": "metrics.loss < 0.3 and metrics.acc > 0.9", "order_by": ["params.lr"]},
    {"filter": "params.seed = '77'"},
    {"filter": "params.seed LIKE '77%'"},
    {"filter": "tags.ticket = 't55'"},
    {"filter": "tags.team = 't1'"},
    {"filter": "tags.team = 'none'"},
    {"filter": "run_name = 'run-77'"},
    {"filter": "run_id = '0000000000000000000000000000004d'"},
    {"filter": "start_time > 1700000000000"},
]

DEEP: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, [EPOCH + 3 * SECOND, 0]),
    ({"order_by": ["metrics.acc DESC"]}, [0, 0.001, 0, 0]),
    ({"order_by": ["metrics.acc"]}, [0, 0.5, 0, 0]),
    ({"order_by": ["metrics.acc"]}, [2, None, EPOCH, 0]),
    ({"order_by": ["params.seed"]}, [0, "55", "55", 0, 0]),
    ({"filter": "metrics.loss < 0.3", "order_by": ["metrics.acc"]}, [0, 0.99, 0, 0]),
]
"""Searches, and places deep in their orders from which a page goes on."""


def check_plans(workspace: Workspace, experiment: int) -> None:
    """No search reads a whole table."""
    deep = [{**asked, "page_token": token_of(place)} for asked, place in DEEP]
    for asked in SEARCHES + deep:
        for step in plans(workspace, experiment, limit=100, **asked):
            # A subquery of counted or merged rows is "scanned" once it stands; a table never is.
            assert not step.startswith("SCAN") or step.startswith(("SCAN anon", "SCAN CONSTANT")), (
                asked,
                step,
            )


def test_no_search_reads_a_whole_table(workspace: Workspace) -> None:
    check_plans(workspace, fill(workspace, 2000))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"lifecycle": None},
        {"order_by": ["start_time ASC"]},
        {"order_by": ["metrics.acc DESC"]},
        {"order_by": ["metrics.sparse", "metrics.acc DESC", "start_time"]},
        {"order_by": ["params.lr", "metrics.loss"]},
        {"order_by": ["params.never"]},
        {"order_by": ["tags.team DESC", "run_id"]},
        {"order_by": ["end_time", "run_name DESC"]},
        {"filter": "metrics.loss < 0.5 and tags.team != 't1'", "order_by": ["metrics.acc"]},
        {"filter": "metrics.loss < 0.01", "order_by": ["metrics.acc"]},
    ],
)
def test_pages_give_each_run_once_in_one_order(any_workspace: Workspace, asked: dict[str, Any]) -> None:
    experiment = fill(any_workspace, 1200)
    whole = [row.number for row in search(any_workspace, experiment, limit=5000, **asked).rows]
    assert len(set(whole)) == len(whole)
    if "filter" not in asked:
        assert len(whole) == 1200
    paged: list[int] = []
    token = ""
    for _ in itertools.count():
        page = search(any_workspace, experiment, limit=171, page_token=token, **asked)
        paged += [row.number for row in page.rows]
        token = page.next_page_token
        if not token:
            break
    assert paged == whole


def test_a_page_goes_on_where_the_one_before_ended_though_runs_were_added(workspace: Workspace) -> None:
    experiment = fill(workspace, 50)
    first = search(workspace, experiment, limit=10)
    newer = "INSERT INTO runs (id, experiment_id, name, status, lifecycle, actor, started_at) VALUES"
    values = f"('{'f' * 32}', {experiment}, 'new', 'RUNNING', 'active', 'ann', {EPOCH + 10**12})"
    workspace.write(lambda tx: tx.execute(text(f"{newer} {values}")))
    second = search(workspace, experiment, limit=10, page_token=first.next_page_token)
    assert [row.number for row in first.rows + second.rows] == list(range(50, 30, -1))


_TERMS = st.sampled_from(
    [
        "metrics.acc",
        "metrics.sparse",
        "params.lr",
        "tags.team",
        "run_name",
        "end_time",
        "start_time",
        "status",
    ]
)
_CONDITIONS = st.sampled_from(
    [
        "metrics.loss < 0.3", "metrics.acc >= 0.999", "metrics.sparse != 0.5", "params.lr = '17'",
        "params.seed LIKE '7%'", "params.seed ILIKE '%9'", "tags.team = 't1'", "tags.team IS NOT NULL",
        "tags.none IS NULL", "run_name LIKE 'run-1%'", "start_time > 1700000100000", "tags.ticket != 't7'",
    ]
)  # fmt: skip


@given(
    order=st.lists(_TERMS, max_size=3, unique=True),
    ways=st.tuples(*[st.sampled_from(["ASC", "DESC"])] * 3),
    conditions=st.lists(_CONDITIONS, max_size=3, unique=True),
    limit=st.integers(30, 90),
    counted=st.sampled_from([2, 8, 30, 100_000]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_walking_and_gathering_find_the_same(
    filled: tuple[Workspace, int],
    order: list[str],
    ways: tuple[str, ...],
    conditions: list[str],
    limit: int,
    counted: int,
) -> None:
    workspace, experiment = filled
    asked = {
        "filter": " and ".join(conditions),
        "order_by": [f"{term} {way}" for term, way in zip(order, ways, strict=False)],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_search, "GATHERED", 1e9)  # too dear: walks wherever it can
        patch.setattr(run_search, "COUNTED", counted)  # so many are alike that they are walked on their own
        walked = _all(workspace, experiment, limit, asked)
        patch.setattr(run_search, "GATHERED", 0.0)
        patch.setattr(run_search, "COUNTED", 100_000)
        gathered = _all(workspace, experiment, 10_000, asked)
    assert walked == gathered


_ORDERS = [
    [],
    ["start_time"],
    ["run_name"],
    ["metrics.acc"],
    ["metrics.acc DESC", "params.lr"],
    ["tags.team", "end_time"],
    ["end_time DESC", "metrics.sparse"],
]
_VALUES = st.none() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=3) | st.integers(0, 3)


@given(order=st.sampled_from(_ORDERS), place=st.lists(_VALUES, min_size=2, max_size=6), raw=st.binary())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_token_that_somebody_made_up_is_refused_or_gives_a_page(
    filled: tuple[Workspace, int], order: list[str], place: list[Any], raw: bytes
) -> None:
    workspace, experiment = filled
    places = [place, *([value, *place[1:], 5, 6][:size] for size in (2, 3, 4, 5, 6) for value in (0, 1, 2))]
    tokens = [base64.urlsafe_b64encode(raw).decode(), raw.decode("latin-1")]
    for made_up in places:
        with contextlib.suppress(OverflowError):  # a number that no token can hold
            tokens.append(token_of(made_up))
    for token in tokens:
        with contextlib.suppress(InvalidInputError):
            search(workspace, experiment, order_by=order, limit=3, page_token=token)


def _all(workspace: Workspace, experiment: int, limit: int, asked: dict[str, Any]) -> list[int]:
    found: list[int] = []
    token = ""
    while not found or token:
        page = search(workspace, experiment, limit=limit, page_token=token, **asked)
        found += [row.number for row in page.rows]
        token = page.next_page_token
        if not page.rows:
            break
    return found


@pytest.fixture
def filled(any_workspace: Workspace) -> tuple[Workspace, int]:
    return any_workspace, fill(any_workspace, 150)


@pytest.mark.long
def test_a_million_runs_stay_usable(workspace: Workspace) -> None:
    """The work of a page is bounded by what it shows: the steps of SQLite's machine are counted."""
    experiment = fill(workspace, 1_000_000)
    check_plans(workspace, experiment)
    deep = [{**asked, "page_token": token_of(place)} for asked, place in DEEP]
    for asked in SEARCHES + deep:
        assert steps(workspace, experiment, limit=100, **asked) < 15_000_000, asked


def steps(workspace: Workspace, experiment: int, **asked: Any) -> int:
    """How many instructions SQLite's virtual machine runs for a search, in thousands of them."""
    counted = 0

    def one_more() -> int:
        nonlocal counted
        counted += 1000
        return 0

    with workspace.read() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(one_more, 1000)
        try:
            run_search.search(connection, [experiment], **asked)
        finally:
            driver.set_progress_handler(None, 0)
    return counted
