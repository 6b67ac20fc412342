"""Batch inference: `trimtab predict` beside a plain loop of Polars and the library itself, on one table.

LightGBM with 50 trees and a scaler with a logistic regression in ONNX, 10 million rows of 30 columns (another
number with --rows), two workers. The plain loop has all processors and neither checks, profiles nor keeps
anything. Memory is the largest sum of the processes' own shares (PSS) that was seen.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import psutil
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trimtab.models.inputs import Inputs, inputs
from trimtab.models.model import Model

COLUMNS = 30
GROUP = 262_144
TREES = 50
WORKERS = 2

PLAIN = {
    "lightgbm": """
import sys, lightgbm, pyarrow.parquet as pq
model, given, output = sys.argv[1:]
booster, writer = lightgbm.Booster(model_file=model), None
for batch in pq.ParquetFile(given).iter_batches(262_144):
    frame = pl.from_arrow(batch)
    made = frame.select("id").with_columns(prediction=booster.predict(frame.drop("id").to_numpy())).to_arrow()
    writer = writer or pq.ParquetWriter(output, made.schema)
    writer.write_table(made)
writer.close()
""",
    "onnx": """
import sys, onnxruntime, numpy as np, pyarrow.parquet as pq
model, given, output = sys.argv[1:]
session, writer = onnxruntime.InferenceSession(model), None
for batch in pq.ParquetFile(given).iter_batches(262_144):
    frame = pl.from_arrow(batch)
    rows = np.ascontiguousarray(frame.drop("id").to_numpy(), dtype=np.float32)
    answers = session.run(["probabilities"], {session.get_inputs()[0].name: rows})[0][:, 1]
    made = frame.select("id").with_columns(prediction=answers.astype(float)).to_arrow()
    writer = writer or pq.ParquetWriter(output, made.schema)
    writer.write_table(made)
writer.close()
""",
}


def write_table(path: Path, rows: int) -> pl.DataFrame:
    """Write the table group by group; answers its first rows."""
    chance = np.random.default_rng(0)
    writer = None
    first = None
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        frame = pl.DataFrame(
            {"id": np.arange(start, start + count)}
            | {f"f{number:02}": chance.normal(size=count) for number in range(COLUMNS)}
        )
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        first = frame if first is None else first
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False)
        writer.write_table(table)
    assert writer is not None
    assert first is not None
    writer.close()
    return first.drop("id").head(20_000)


def write_models(folder: Path, rows: pl.DataFrame) -> dict[str, Path]:
    """Both models packaged; answers the library's own file of each."""
    taken: Inputs = inputs(rows)
    matrix = taken.matrix(rows)
    target = (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] > 0).astype(np.int64)
    booster = lightgbm.train({"verbose": -1, "num_leaves": 31}, lightgbm.Dataset(matrix, target), TREES)
    booster.save_model(folder / "plain.txt")
    Model.lightgbm(booster, taken, target="y").save(folder / "lightgbm")
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(matrix, target)
    made = to_onnx(
        fitted, initial_types=[("x", FloatTensorType([None, COLUMNS]))], options={"zipmap": False}
    ).SerializeToString()
    (folder / "plain.onnx").write_bytes(made)
    Model.onnx(made, taken, target="y", result="probabilities").save(folder / "onnx")
    return {"lightgbm": folder / "plain.txt", "onnx": folder / "plain.onnx"}


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and megabytes that a command with its processes took."""
    largest = 0.0
    began, before = time.perf_counter(), psutil.Process().cpu_times()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    over = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not over.wait(0.2):
            try:
                parent = psutil.Process(process.pid)
                family = [parent, *parent.children(recursive=True)]
                largest = max(largest, sum(one.memory_full_info().pss for one in family))
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    over.set()
    watcher.join()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    taken, after = time.perf_counter() - began, psutil.Process().cpu_times()
    spent = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    return taken, spent, largest / 1e6


def main() -> None:
    """Write table and models, run each way in turn, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    print(f"{'':34}{'rows/s':>12}{'CPU us/row':>12}{'MB':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = folder / "table.parquet"
        plain = write_models(folder, write_table(given, rows))
        for kind, file in plain.items():
            ours = [sys.executable, "-m", "trimtab.cli", "predict", "--model", str(folder / kind)]
            ours += ["--key", "id", "--input", str(given), "--output", str(folder / f"{kind}.parquet")]
            theirs = [sys.executable, "-c", "import polars as pl" + PLAIN[kind], str(file), str(given)]
            theirs += [str(folder / f"{kind}-plain.parquet")]
            speeds = []
            for title, command in (
                (f"trimtab predict, {kind}", [*ours, "--workers", str(WORKERS)]),
                (f"plain loop, {kind}", theirs),
            ):
                taken, spent, memory = measured(command)
                speeds.append(rows / taken)
                print(f"{title:34}{rows / taken:12,.0f}{spent / rows * 1e6:12.2f}{memory:8.0f}", flush=True)
            mine, plainly = speeds
            same = pl.read_parquet(folder / f"{kind}.parquet")["prediction"]
            other = pl.read_parquet(folder / f"{kind}-plain.parquet")["prediction"]
            apart = float(np.abs(same.to_numpy() - other.to_numpy()).max())
            print(f"{'':34}{mine / plainly:11.2f}x the plain loop; answers differ by {apart:.1g} at most")
            for made in folder.glob(f"{kind}*.parquet*"):
                made.unlink()


if __name__ == "__main__":
    main()
