"""Segments are brought to their tables by a process that may be killed, and that is gone when it is done."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
from tests.serving.running_gateway import until

from trimtab.serving.carriage import Carriage
from trimtab.serving.frames import EntryFrame, RowFrame, encoded
from trimtab.serving.log_indexer import LogIndexer
from trimtab.serving.segments import FOLDER, Limits, SegmentWriter, segments
from trimtab.serving.shipper import NICENESS
from trimtab.workspace import Workspace

ENTRY = EntryFrame(1, "rides", 4, "m", (7,), ("primary",), ("x",), ("number",))
AT = 1_315_000_000_000_000


def logged(workspace: Workspace, rows: int) -> None:
    """So many predictions in a segment that has ended and is indexed."""
    writer = SegmentWriter(workspace.root / FOLDER, Limits())
    for number in range(rows):
        frame = RowFrame(1, f"p{number}", AT + number, None, 0, [float(number)], [1.0], 5)
        writer.append(encoded(frame), rows=1, at=AT, entry=ENTRY)
    writer.close()
    writer.sync()
    LogIndexer(workspace.root / FOLDER).index(workspace)


def carriers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "trimtab.serving.carrier" in child.cmdline()]


def test_no_carrier_runs_while_there_is_nothing_to_bring(workspace: Workspace) -> None:
    folder = workspace.root / FOLDER
    writer = SegmentWriter(folder, Limits())
    writer.append(encoded(ENTRY), rows=1, at=AT)
    carriage = Carriage(workspace.project, folder)
    carriage.tend()
    assert carriers() == []
    carriage.end()


def test_a_carrier_that_is_killed_is_followed_by_one_that_brings_each_row_once(workspace: Workspace) -> None:
    logged(workspace, 50)
    folder = workspace.root / FOLDER
    carriage = Carriage(workspace.project, folder)
    for pause in (0.0, 0.4, 0.8):
        carriage.tend()
        time.sleep(pause)
        for carrier in carriers():
            carrier.send_signal(signal.SIGKILL)
            carrier.wait()

    def brought() -> bool:
        carriage.tend()
        return not list(segments(folder))

    until(brought)
    carriage.end()
    assert carriers() == []
    assert workspace.tables.read("predictions/rides")["id"].to_list() == [
        f"p{number}" for number in range(50)
    ]


def test_a_shipper_and_its_carrier_take_the_processor_from_nobody_who_answers(workspace: Workspace) -> None:
    logged(workspace, 1)
    command = [sys.executable, "-m", "trimtab.serving.shipper", "--project", str(workspace.project)]
    shipper = psutil.Popen(command, stdin=subprocess.PIPE)
    found: list[int] = []

    def carries() -> bool:
        found.extend(child.nice() for child in shipper.children())
        return bool(found)

    until(carries)
    assert shipper.nice() == found[0] == min(psutil.Process().nice() + NICENESS, 19)
    shipper.stdin.close()
    assert shipper.wait(30) == 0
