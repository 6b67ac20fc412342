from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from trimtab.errors import StorageFullError, UnavailableError
from trimtab.serving.frames import EntryFrame, Frame, LabelFrame, RowFrame, encoded
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.segments import Limits, SegmentWriter, remove_drafts, segments

ENTRY = EntryFrame(1, "rides", 1, "m", (1,), ("primary",), ("x",), ("number",))


def row(number: int, at: int = 0) -> bytes:
    return encoded(RowFrame(1, f"id-{number}", at, None, 0, [float(number)], [1.0], 5))


def label(number: int) -> Frame:
    return LabelFrame("rides", number, 0, id=f"id-{number}")


def found(folder: Path) -> list[Frame]:
    return [frame for segment in segments(folder) for frame in segment.read().frames]


class Disk:
    """A disk with so many bytes of room; a write that does not fit is cut off, the next one fails."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, handle: int, data: bytes) -> int:
        part = data[: self.room]
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(part)
        return os.write(handle, part)


def test_an_entry_stands_once_before_its_rows_in_each_segment(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, Limits(rows=3))
    for number in range(5):
        writer.append(row(number), rows=1, at=0, entry=ENTRY)
    kinds = [[type(frame) for frame in segment.read().frames] for segment in segments(tmp_path)]
    assert sorted(kinds, key=len) == [[EntryFrame, *[RowFrame] * 2], [EntryFrame, *[RowFrame] * 3]]


@pytest.mark.parametrize("limits", [Limits(rows=1), Limits(bytes=1), Limits(span=timedelta(microseconds=10))])
def test_a_segment_ends_by_rows_bytes_and_event_time(tmp_path: Path, limits: Limits) -> None:
    writer = SegmentWriter(tmp_path, limits)
    for number in range(3):
        writer.append(row(number), rows=1, at=number * 10, entry=ENTRY)
    assert len(list(segments(tmp_path))) == 3


def test_nothing_stays_half_written_on_a_full_disk_and_it_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = Disk(room=10_000)
    writer = SegmentWriter(tmp_path, Limits(), write=disk.write)
    written = 0
    while disk.room > 100:
        writer.append(row(written), rows=1, at=0, entry=ENTRY)
        written += 1
    with pytest.raises(StorageFullError):
        writer.append(row(written) * 10, rows=10, at=0, entry=ENTRY)
    (segment,) = segments(tmp_path)
    assert segment.read().end == segment.size()
    assert len(segment.read().frames) == written + 1
    disk.room = 10_000
    writer.append(row(written), rows=1, at=0, entry=ENTRY)
    assert len(found(tmp_path)) == written + 2
    assert not segment.read().damaged


def test_a_disk_that_is_full_from_the_start_leaves_no_entry_without_its_row(tmp_path: Path) -> None:
    disk = Disk(room=len(encoded(ENTRY)) + 3)
    writer = SegmentWriter(tmp_path, Limits(), write=disk.write)
    with pytest.raises(StorageFullError):
        writer.append(row(1), rows=1, at=0, entry=ENTRY)
    disk.room = 1000
    writer.append(row(2), rows=1, at=0, entry=ENTRY)
    assert [type(frame) for frame in found(tmp_path)] == [EntryFrame, RowFrame]


def test_a_log_folder_that_is_gone_is_told_and_not_swallowed(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    writer = SegmentWriter(folder, Limits())
    folder.rmdir()
    with pytest.raises(UnavailableError, match="cannot be written"):
        writer.append(row(1), rows=1, at=0)


def test_a_segment_is_orphaned_once_its_writer_has_ended_it(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, Limits())
    writer.append(encoded(label(1)), rows=1, at=0)
    (segment,) = segments(tmp_path)
    assert not segment.orphaned()
    writer.close()
    writer.sync()
    assert segment.orphaned()


def test_a_segment_is_orphaned_once_its_writer_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from trimtab.serving.segments import *\n"
        "writer = SegmentWriter(Path(sys.argv[1]), Limits()); writer.append(b'x', rows=1, at=0)\n"
        "print('written', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (segment,) = segments(tmp_path)
        assert not segment.orphaned()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert segment.orphaned()


def test_drafts_of_the_living_are_left_alone_and_those_of_the_dead_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".1-a-0.seg", tmp_path / ".2-b-0.seg"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    remove_drafts(tmp_path)
    assert not old.exists()
    assert new.exists()
    assert list(segments(tmp_path)) == []


def test_a_log_holds_no_more_than_it_may_until_some_of_it_is_shipped(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, Limits(disk=1000))
    other = SegmentWriter(tmp_path, Limits(disk=1000))
    other.append(b"x" * 600, rows=1, at=0)
    writer.append(b"x" * 200, rows=1, at=0)
    writer.sync()
    assert writer.used == 800
    with pytest.raises(StorageFullError, match=r"800 bytes.*log_disk_limit"):
        writer.append(b"x" * 300, rows=1, at=0)
    other.close()
    other.sync()
    for segment in segments(tmp_path):
        if segment.orphaned():
            segment.path.unlink()
    writer.sync()
    writer.append(b"x" * 300, rows=1, at=0)
    assert writer.used == 500
    writer.close()
    writer.sync()


def test_a_log_that_samples_keeps_one_record_of_ten_once_it_is_half_full(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, Limits(disk=1000))
    log = PredictionLog(writer, "sample")
    for _ in range(100):
        log.predicted(b"x" * 10, rows=1, at=0, entry=ENTRY)
    assert log.predictions + log.dropped == 100
    assert 40 < log.predictions < 60
    for _ in range(1000):
        log.predicted(b"x" * 10, rows=1, at=0, entry=ENTRY)
    assert 500 < writer.used <= 1000
    writer.close()
    writer.sync()
