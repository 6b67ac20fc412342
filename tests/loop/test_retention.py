"""What is old leaves the fast indexes, and what a loop still looks back at stays."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, insert, select
from tests.loop.scene import DAY, NAME, START, Scene, declared

import trimtab as tt
from trimtab.loop.caches import tidy_caches
from trimtab.loop.records import get_applied
from trimtab.loop.retention import forget
from trimtab.monitoring.alerts import Alerts
from trimtab.monitoring.outcomes import Outcomes, PredictionRecord, record_predictions
from trimtab.monitoring.schema import findings_table
from trimtab.pipelines.jobs import enqueue
from trimtab.pipelines.schema import jobs_table
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.schema import log_segments_table
from trimtab.store.database import Transaction
from trimtab.store.schema import instances_table
from trimtab.store.types import to_microseconds


def predicted(scene: Scene, day: int, endpoint: str = NAME) -> None:
    at = to_microseconds(START + day * DAY)
    row = PredictionRecord(
        id=f"{endpoint}{day}", endpoint=endpoint, at=at, key=None, version=1, answer=1.0, scores={1: 1.0}
    )
    scene.workspace.write(lambda tx: record_predictions(tx, [row]))


def days_left(scene: Scene, endpoint: str = NAME) -> list[int]:
    found = Outcomes(scene.workspace).joined(endpoint, START, START + 1000 * DAY)
    return [(int(at) - to_microseconds(START)) // 86_400_000_000 for at in found.at]


def test_a_champions_first_days_stay_as_long_as_a_monitor_compares_with_them(tmp_path: Path) -> None:
    watched = [tt.Performance("rmsle", drop=0.1, days=3), tt.Bias(max_abs=0.2, days=7)]
    scene = Scene(tmp_path, declared(monitors=watched))
    scene.bootstrap()
    for day in (0, 2, 3, 50, 299):
        predicted(scene, day)
    predicted(scene, 1, "another")
    scene.workspace.write(lambda tx: forget(tx, scene.workspace, START + 300 * DAY))
    assert days_left(scene) == [0, 2, 299]
    assert days_left(scene, "another") == []
    scene.close()


def test_what_a_monitor_or_a_rollout_looks_back_at_stays(tmp_path: Path) -> None:
    scene = Scene(tmp_path, declared(monitors=[tt.Bias(max_abs=0.2, log=True, days=200)]))
    for day in (0, 150, 299):
        predicted(scene, day)
    scene.workspace.write(lambda tx: forget(tx, scene.workspace, START + 300 * DAY))
    assert days_left(scene) == [150, 299]
    scene.close()


def test_what_is_over_and_done_goes_once_a_day(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.bootstrap()
    long_ago = datetime.now(UTC) - timedelta(days=1000)

    def prepare(tx: Transaction) -> None:
        tx.execute(
            insert(log_segments_table),
            [
                {"id": id, "host": "h", "folder": "f", "indexed": 1, "rows": 1, "labels": 0, "shipped_at": at}
                for id, at in (("shipped", START), ("waiting", None))
            ],
        )
        for kind in ("loop.ingest", "loop.labels"):
            enqueue(tx, kind, {}, dedupe_key=f"{kind} done")
        tx.execute(
            jobs_table.update().where(jobs_table.c.state == "queued").values(state="finished", ended_at=tx.at)
        )

    scene.workspace.write(prepare)
    scene.workspace.instances.beat("dead", "gateway")
    scene.workspace.write(lambda tx: tx.execute(instances_table.update().values(heartbeat_at=long_ago)))
    scene.live(2)
    assert Alerts(scene.workspace).findings(NAME)
    scene.workspace.write(lambda tx: enqueue(tx, "loop.ingest", {}, dedupe_key="waits"))
    scene.wait(days=200)
    scene.serve()
    while scene.controller.reconcile():
        pass
    with scene.workspace.read() as connection:
        keys = set(connection.execute(select(jobs_table.c.dedupe_key)).scalars())
        segments = list(connection.execute(select(log_segments_table.c.id)).scalars())
        oldest = connection.execute(select(func.min(findings_table.c.at))).scalar_one()
        instances = list(connection.execute(select(instances_table.c.id)).scalars())
    assert segments == ["waiting"]
    assert oldest > START + 2 * DAY
    assert {"waits", "loop.labels done"} <= keys
    assert "loop.ingest done" not in keys
    assert f"cycle:{NAME}-1:train" in keys
    assert "dead" not in instances
    scene.close()


def test_the_cache_lets_go_of_what_nothing_points_at_any_more(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.bootstrap()
    cache = scene.workspace.cache
    route = Endpoints(scene.workspace).route(NAME)
    assert route is not None
    used, unused = route.primary.digest.removeprefix("b3:"), "0" * 64
    with scene.workspace.read() as connection:
        code = get_applied(connection, NAME, 1).project.removeprefix("b3:")
    old = [
        *(cache / "models" / name for name in (used, f"b3-{used}", unused, f"b3-{unused}", ".fetch-x")),
        *(cache / "projects" / name for name in (code, unused)),
        *(cache / name for name in ("run-x", "worker-x", "snapshot-x", "other")),
    ]
    young = [cache / "models" / ("1" * 64), cache / "run-y"]
    for folder in (*old, *young):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").touch()
    for folder in old:
        os.utime(folder, (0, 0))
    scene.wait(days=1)
    scene.settle()
    left = {path.relative_to(cache) for path in (*old, *young) if path.exists()}
    assert left == {
        *(Path("models") / name for name in (used, f"b3-{used}", "1" * 64)),
        *(Path("projects") / code, Path("other"), Path("run-y")),
    }
    assert tidy_caches(scene.workspace) == 0
    assert not list(cache.rglob(".gone-*"))
    scene.close()
