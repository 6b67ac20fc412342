from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
from tests.loop.scene import NAME, Scene

from trimtab.data.sources import Sources
from trimtab.loop import jobs
from trimtab.monitoring.outcomes import Outcomes
from trimtab.pipelines.jobs import Jobs
from trimtab.serving.endpoints import labels_dataset
from trimtab.serving.labels import watch_labels


def test_labels_from_a_folder_are_told_once_for_each_version(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    scene.bootstrap()
    folder = scene.workspace.project / "labels"
    folder.mkdir()
    watch_labels(scene.workspace, NAME, folder, every=timedelta(days=1), settle=timedelta(0))
    for day in (1, 2):
        rows = {"key": [f"k{day}"], "label": [float(day)]}
        pl.DataFrame(rows).write_parquet(folder / f"{day}.parquet")
    queue = Jobs(scene.workspace)
    done = []
    for _ in range(6):
        while scene.controller.reconcile():
            pass
        job = queue.claim("worker-1", ["loop.ingest", "loop.labels"])
        if job is not None:
            handler = jobs.ingest if job.kind == "loop.ingest" else jobs.labels
            queue.finish(job, handler(scene.workspace, job.spec, None))  # type: ignore[arg-type]  # unused
            done.append((job.kind, job.dedupe_key))
    assert [kind for kind, _ in done] == ["loop.ingest", "loop.labels", "loop.labels"]
    assert {key for _, key in done[1:]} == {f"labels:{NAME}:1", f"labels:{NAME}:2"}
    assert Outcomes(scene.workspace).counts(NAME) == (0, 0, 2)
    assert Sources(scene.workspace).list(labels_dataset(NAME))[0].looked_at is not None
    scene.close()
