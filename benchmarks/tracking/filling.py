"""Experiments of many runs, written straight into the tables: through a client it would take hours.

Each run has four params, three metrics of one point, and four tags, as a small training script leaves
them. The values are spread at random; both stores get the same shape.
"""

from __future__ import annotations

import random
import sqlite3
import struct
from pathlib import Path

from trimtab.tracking import experiments
from trimtab.workspace import Workspace

EXPERIMENT = "many runs"
PARAMS = ("depth", "learning_rate", "optimizer", "seed")
METRICS = ("accuracy", "f1", "loss")
TAGS = ("mlflow.source.name", "mlflow.source.type", "mlflow.user", "team")
NEWEST = 1_760_000_000_000
"""When the last run started, milliseconds since 1970; the others started 10 s apart."""


def fill_trimtab(project: Path, runs: int) -> str:
    """Make a workspace whose experiment has so many runs; answers the experiment's id."""
    with Workspace.create(project, actor="benchmark") as workspace:
        experiment = workspace.write(lambda tx: experiments.get_or_create(tx, EXPERIMENT)).id
        path = workspace.root / "metadata.db"
    connection = opened(path)
    connection.executemany("INSERT INTO metric_keys (name) VALUES (?)", [(name,) for name in METRICS])
    (writer,) = connection.execute(
        "INSERT INTO metric_writers (name) VALUES ('bench') RETURNING id"
    ).fetchone()
    connection.execute(
        f"""{numbered(runs)} INSERT INTO runs
        (id, experiment_id, name, status, lifecycle, actor, started_at, ended_at)
        SELECT lower(hex(randomblob(16))), ?, 'run ' || i, 'FINISHED', 'active', 'benchmark',
        ? * 1000 - (? - i) * 10000000, ? * 1000 - (? - i) * 10000000 + 5000000 FROM n""",
        (experiment, NEWEST, runs, NEWEST, runs),
    )
    for table, keys in (("params", PARAMS), ("run_tags", TAGS)):
        connection.execute(
            f"INSERT INTO {table} (run, key, value) SELECT number, column1, text_of(column1, number) "
            f"FROM runs CROSS JOIN (VALUES {listed(keys)})"
        )
    connection.execute(
        """INSERT INTO latest_metrics (run, key, value, step, at)
        SELECT number, metric_keys.id, value_of(), 0, started_at FROM runs CROSS JOIN metric_keys"""
    )
    connection.execute(
        """INSERT INTO metric_chunks
        (run, key, writer, sequence, points, first_step, last_step, encoding, data)
        SELECT run, key, ?, run, 1, 0, 0, 0, packed(at, value) FROM latest_metrics""",
        (writer,),
    )
    closed(connection)
    return str(experiment)


def fill_stock(database: Path, experiment: str, runs: int) -> None:
    """Give an experiment of MLflow's own store so many runs.

    SQLite gets statistics, which MLflow never asks for: without them it orders by a metric 40 times slower.
    """
    connection = opened(database)
    connection.execute(
        f"""{numbered(runs)} INSERT INTO runs
        (run_uuid, experiment_id, name, status, lifecycle_stage, user_id, source_type, source_name,
         entry_point_name, source_version, start_time, end_time, artifact_uri)
        SELECT lower(hex(randomblob(16))), ?, 'run ' || i, 'FINISHED', 'active', 'benchmark', 'UNKNOWN', '',
        '', '', ? - (? - i) * 10000, ? - (? - i) * 10000 + 5000, '' FROM n""",
        (int(experiment), NEWEST, runs, NEWEST, runs),
    )
    ours = (
        f"(SELECT rowid AS number, * FROM runs WHERE experiment_id = {int(experiment)} AND name LIKE 'run %')"
    )
    for table, keys in (("params", PARAMS), ("tags", (*TAGS, "mlflow.runName"))):
        connection.execute(
            f"INSERT INTO {table} (run_uuid, key, value) SELECT run_uuid, column1, text_of(column1, number) "
            f"FROM {ours} CROSS JOIN (VALUES {listed(keys)})"
        )
    connection.execute(
        f"""INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)
        SELECT run_uuid, column1, value_of(), start_time, 0, 0
        FROM {ours} CROSS JOIN (VALUES {listed(METRICS)})"""
    )
    connection.execute(
        f"""INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
        SELECT run_uuid, key, value, timestamp, step, is_nan FROM latest_metrics
        WHERE run_uuid IN (SELECT run_uuid FROM {ours})"""
    )
    connection.execute("ANALYZE")
    closed(connection)


def opened(path: Path) -> sqlite3.Connection:
    """A connection in one large transaction, with the functions that make values."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-400000")
    spread = random.Random(7)
    connection.create_function("value_of", 0, spread.random)
    connection.create_function("text_of", 2, text_of, deterministic=True)
    connection.create_function("packed", 2, lambda at, value: struct.pack("<qqd", 0, at, value))
    connection.execute("BEGIN IMMEDIATE")
    return connection


def closed(connection: sqlite3.Connection) -> None:
    """Commit, and leave the file as a server that has ended would."""
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def text_of(key: str, number: int) -> str:
    """The param or tag of a run."""
    match key:
        case "depth":
            return str(3 + number % 9)
        case "learning_rate":
            return f"{0.001 * (1 + number % 100):.3f}"
        case "optimizer":
            return ("adam", "sgd", "adamw")[number % 3]
        case "seed":
            return str(number)
        case "team":
            return f"team {number % 10}"
        case "mlflow.runName":
            return f"run {number}"
        case _:
            return {"mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL"}.get(key, "benchmark")


def numbered(runs: int) -> str:
    """A table of the numbers from 1."""
    return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {runs})"


def listed(keys: tuple[str, ...]) -> str:
    """Keys as rows of one column."""
    return ", ".join(f"('{key}')" for key in keys)
