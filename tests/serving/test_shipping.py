from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trimtab.monitoring.live_profiles import ANSWER, LATENCY, LiveProfiles
from trimtab.monitoring.outcomes import Outcomes
from trimtab.serving import indexing, log_indexer, shipping
from trimtab.serving.columnar import PREDICTION_SCHEMA
from trimtab.serving.frames import (
    HEADER,
    EntryFrame,
    FailureFrame,
    Frame,
    LabelFrame,
    RowFrame,
    RowsFrame,
    encoded,
)
from trimtab.serving.log_columns import Unfolding
from trimtab.serving.log_indexer import LogIndexer
from trimtab.serving.segments import FOLDER, LARGEST_SEGMENT, Limits, SegmentWriter, segments
from trimtab.serving.shipper_lock import ShipperLock
from trimtab.serving.shipping import Shipper, ship_all
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

DAY = datetime(2011, 9, 1, tzinfo=UTC)
AT = to_microseconds(DAY)
ENTRY = EntryFrame(
    1, "rides", 4, "m", (7, 8), ("primary", "shadow"), ("x", "season", "id"), ("number", "text", "integer")
)


def row(number: int, *, key: str | None = None) -> Frame:
    return RowFrame(1, f"p{number}", AT + number, key, 0, [number, "winter", 5], [float(number), None], 50)


def label(number: int, value: float | str = 1.0) -> Frame:
    return LabelFrame("rides", value, AT + 100, id=f"p{number}")


class Log:
    """A gateway's log in a workspace's folder."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.root / FOLDER
        self.writer = SegmentWriter(self.folder, Limits())

    def write(self, *frames: Frame) -> None:
        for frame in frames:
            self.writer.append(encoded(frame), rows=1, at=AT, entry=ENTRY)

    def end(self) -> None:
        self.writer.close()
        self.writer.sync()


def shipped(log: Log, workspace: Workspace) -> int:
    """Index and ship all that can be, by processes that have just started; answers how many segments."""
    LogIndexer(log.folder).index(workspace)
    return Shipper(log.folder).ship(workspace)


@pytest.fixture
def log(workspace: Workspace) -> Log:
    return Log(workspace)


def counts(workspace: Workspace) -> tuple[int, int, int]:
    """Predictions in the index, labelled ones, labels that wait."""
    return Outcomes(workspace).counts("rides")


def test_rows_are_in_the_index_while_their_segment_is_still_written_to(
    workspace: Workspace, log: Log
) -> None:
    indexer, shipper = LogIndexer(log.folder), Shipper(log.folder)
    for number in range(3):
        log.write(row(number), label(number))
        assert indexer.index(workspace) == 2
        assert indexer.index(workspace) == 0
        assert shipper.ship(workspace) == 0
        assert counts(workspace) == (number + 1, number + 1, 0)
    joined = Outcomes(workspace).joined("rides", DAY, DAY + timedelta(days=1))
    assert joined.answer.tolist() == [0, 1, 2]
    assert joined.version.tolist() == [7, 7, 7]


def test_an_ended_segment_goes_to_the_tables_and_its_file_goes_away(workspace: Workspace, log: Log) -> None:
    log.write(row(1, key="k"), label(1), label(2, "late"))
    log.end()
    assert shipped(log, workspace) == 1
    assert list(segments(log.folder)) == []
    (found,) = workspace.tables.read("predictions/rides").to_dicts()
    assert found == {
        "id": "p1",
        "at": DAY + timedelta(microseconds=1),
        "version": 7,
        "generation": 4,
        "role": "primary",
        "key": "k",
        "prediction": 1.0,
        "scores": '{"7":1.0,"8":null}',
        "took_us": 50,
        "x": 1.0,
        "season": "winter",
        "feature_id": 5,
    }
    feedback = workspace.tables.read("feedback/rides")
    assert feedback["id"].to_list() == ["p1", "p2"]
    assert feedback["label"].to_list() == [1.0, None]
    assert feedback["label_text"].to_list() == [None, "late"]
    assert counts(workspace) == (1, 1, 0)


def test_a_label_before_its_prediction_and_a_label_sent_twice_are_one_label(
    workspace: Workspace, log: Log
) -> None:
    indexer = LogIndexer(log.folder)
    log.write(label(1))
    indexer.index(workspace)
    assert counts(workspace) == (0, 0, 1)
    log.end()
    log.write(row(1), label(1), label(1))
    indexer.index(workspace)
    assert counts(workspace) == (1, 1, 0)


def test_rows_of_one_request_are_rows_of_the_log(workspace: Workspace, log: Log) -> None:
    request = RowsFrame(
        1, "r", AT, ["a", None], [0, 1], [[1.0, 2.0], None, [5, None]], [[1.0, 2.0], [3.0, 4.0]], 9
    )
    log.write(request)
    log.end()
    shipped(log, workspace)
    found = workspace.tables.read("predictions/rides")
    assert found.select("id", "key", "version", "role", "prediction", "x", "season", "feature_id").rows() == [
        ("r.0", "a", 7, "primary", 1.0, 1.0, None, 5),
        ("r.1", None, 8, "shadow", 4.0, 2.0, None, None),
    ]


def test_live_profiles_are_kept_by_version_and_event_day(workspace: Workspace, log: Log) -> None:
    day = 86_400_000_000
    for number, at in enumerate([AT, AT + day - 1, AT + day]):
        log.write(RowFrame(1, f"p{number}", at, None, number % 2, [number, "winter", 5], [1.0, 2.0], 1500))
    log.write(FailureFrame("rides", AT, "storage_full"), FailureFrame("rides", AT, "model_failed", 8))
    LogIndexer(log.folder).index(workspace)
    live = LiveProfiles(workspace)
    for version, start, rows in ((7, 0, 1), (8, 0, 1), (7, 1, 1), (None, 0, 2)):
        begin = DAY + timedelta(days=start)
        profile = live.read("rides", begin, begin + timedelta(days=1), version=version)
        assert profile is not None
        assert profile.rows == rows
        assert set(profile.features) == {"x", "season", "id", ANSWER, LATENCY}
        assert profile.features[LATENCY].mean == 1.5
    assert live.service("rides", DAY, DAY + timedelta(days=1)) == (3, 1)


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize(
    "stage", ["record_labels", "merge_profile", "_append_predictions", "_append_feedback", "_mark_shipped"]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_neither_loses_nor_doubles(
    workspace: Workspace, log: Log, monkeypatch: pytest.MonkeyPatch, stage: str, when: str
) -> None:
    log.write(*(frame for number in range(20) for frame in (row(number), label(number))))
    log.end()
    where = (
        "trimtab.serving.indexing"
        if stage in {"record_labels", "merge_profile"}
        else "trimtab.serving.shipping"
    )
    with monkeypatch.context() as patched:
        patched.setattr(f"{where}.{stage}", killing(where, stage, when))
        with pytest.raises(Killed):
            shipped(log, workspace)
    assert shipped(log, workspace) == 1
    assert counts(workspace) == (20, 20, 0)
    live = LiveProfiles(workspace)
    profile = live.read("rides", DAY, DAY + timedelta(days=1), version=7)
    assert profile is not None
    assert profile.rows == 20
    assert live.service("rides", DAY, DAY + timedelta(days=1)) == (20, 0)
    for table in ("predictions/rides", "feedback/rides"):
        assert workspace.tables.read(table)["id"].to_list() == [f"p{number}" for number in range(20)]


def killing(where: str, stage: str, when: str) -> object:
    original = getattr(shipping if where.endswith("shipping") else indexing, stage)

    def killed(*arguments: object) -> None:
        if when == "after":
            original(*arguments)
        raise Killed

    return killed


def test_a_segment_is_shipped_only_once_it_is_indexed(workspace: Workspace, log: Log) -> None:
    log.write(row(1))
    log.end()
    shipper = Shipper(log.folder)
    assert shipper.ship(workspace) == 0
    LogIndexer(log.folder).index(workspace)
    assert shipper.ship(workspace) == 1


def test_a_segment_that_ends_with_large_requests_is_shipped_whole(workspace: Workspace, log: Log) -> None:
    large = encoded(FailureFrame("rides", AT, "x" * (LARGEST_SEGMENT * 2 // 5)))
    for frames in ([row(1), large, row(2)], [large], [large, row(3), label(3)]):
        data = b"".join(each if isinstance(each, bytes) else encoded(each) for each in frames)
        log.writer.append(data, rows=1, at=AT, entry=ENTRY)
        LogIndexer(log.folder).index(workspace)
    log.end()
    assert next(segments(log.folder)).size() > LARGEST_SEGMENT
    assert shipped(log, workspace) == 1
    assert counts(workspace) == (3, 1, 0)
    assert sorted(workspace.tables.read("predictions/rides")["id"]) == ["p1", "p2", "p3"]
    assert workspace.tables.read("feedback/rides")["id"].to_list() == ["p3"]


def test_a_kill_between_the_pieces_of_a_segment_neither_loses_nor_doubles(
    workspace: Workspace, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "PIECE_BYTES", 200)
    log.write(*map(row, range(20)))
    log.end()
    append = shipping._append_predictions

    def killed(*arguments: Any) -> None:
        if "@" in arguments[2]:
            raise Killed
        append(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(shipping, "_append_predictions", killed)
        with pytest.raises(Killed):
            shipped(log, workspace)
    assert 0 < workspace.tables.read("predictions/rides").height < 20
    assert shipped(log, workspace) == 1
    assert sorted(workspace.tables.read("predictions/rides")["id"]) == sorted(f"p{n}" for n in range(20))


def test_a_segment_that_lost_what_was_indexed_of_it_is_not_deleted(workspace: Workspace, log: Log) -> None:
    log.write(row(1), row(2))
    LogIndexer(log.folder).index(workspace)
    log.end()
    (segment,) = segments(log.folder)
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole[:-5])
    assert shipped(log, workspace) == 0
    segment.path.write_bytes(whole)
    assert shipped(log, workspace) == 1
    assert sorted(workspace.tables.read("predictions/rides")["id"]) == ["p1", "p2"]


def test_two_shippers_on_one_log_index_each_row_once(workspace: Workspace, log: Log) -> None:
    one, other = LogIndexer(log.folder), LogIndexer(log.folder)
    for number in range(10):
        log.write(row(number))
        (one if number % 3 else other).index(workspace)
    assert one.index(workspace) + other.index(workspace) + one.index(workspace) <= 10
    one.index(workspace)
    assert counts(workspace) == (10, 0, 0)
    log.end()
    for indexer in (other, one, other):
        indexer.index(workspace)
        Shipper(log.folder).ship(workspace)
    assert workspace.tables.read("predictions/rides").height == 10


def test_a_torn_tail_is_dropped_and_damage_is_kept(workspace: Workspace, log: Log) -> None:
    log.write(row(1), row(2))
    log.end()
    (segment,) = segments(log.folder)
    segment.path.write_bytes(segment.path.read_bytes()[:-5])
    log.write(row(3), row(4))
    log.end()
    damaged = next(each for each in segments(log.folder) if each.id != segment.id)
    content = bytearray(damaged.path.read_bytes())
    content[len(encoded(ENTRY)) + 12] ^= 1
    damaged.path.write_bytes(content)
    log.write(row(5))
    log.end()
    assert shipped(log, workspace) == 3
    assert sorted(workspace.tables.read("predictions/rides")["id"]) == ["p1", "p5"]
    assert [path.read_bytes() for path in log.folder.glob("*.damaged")] == [bytes(content)]


def test_frames_that_nobody_can_read_cost_no_others_and_are_kept(workspace: Workspace, log: Log) -> None:
    orphan = RowFrame(9, "orphan", AT, None, 0, [1.0, "winter", 5], [1.0, None], 5)
    log.write(row(1), orphan, row(2))
    log.writer.append(framed(b"\xc1 is no msgpack"), rows=1, at=AT)
    log.write(label(1))
    log.end()
    (segment,) = segments(log.folder)
    content = segment.path.read_bytes()
    told: list[str] = []
    indexer = LogIndexer(log.folder)
    assert indexer.index(workspace, also=lambda _: told.append("all is in")) == 3
    assert told == ["all is in"]
    assert Shipper(log.folder).ship(workspace) == 1
    assert counts(workspace) == (2, 1, 0)
    assert sorted(workspace.tables.read("predictions/rides")["id"]) == ["p1", "p2"]
    assert [path.read_bytes() for path in log.folder.glob("*.damaged")] == [content]


def framed(body: bytes) -> bytes:
    return HEADER.pack(len(body), zlib.crc32(body)) + body


@pytest.mark.parametrize("stage", ["reading", "batch", "transaction"])
def test_a_segment_that_cannot_be_indexed_holds_up_no_other_and_nobody_is_told_that_it_is_in(
    workspace: Workspace, log: Log, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(log_indexer, "LEAVE_SECONDS", 0.0)
    log.write(row(1))
    log.end()
    (bad,) = segments(log.folder)
    for number in (2, 3):
        log.write(row(number))
        log.end()
    where, name = {
        "reading": (Unfolding, "content"),
        "batch": (indexing, "_answered"),
        "transaction": (indexing, "record_answers"),
    }[stage]
    right = getattr(where, name)

    def wrong(*arguments: Any) -> Any:
        if "p1" in str(arguments) or any(b"p1" in bytes(x) for x in _bodies(arguments)):
            raise RuntimeError("a bug")
        return right(*arguments)

    indexer = LogIndexer(log.folder)
    told: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(where, name, wrong)
        for indexed in (2, 0):
            assert indexer.index(workspace, also=lambda _: told.append("all is in")) == indexed
            assert not indexer.complete
        assert told == []
    assert counts(workspace) == (2, 0, 0)
    assert Shipper(log.folder).ship(workspace) == 2
    assert [segment.id for segment in segments(log.folder)] == [bad.id]
    assert indexer.index(workspace, also=lambda _: told.append("all is in")) == 1
    assert indexer.complete
    assert told == ["all is in"]


def _bodies(arguments: tuple[Any, ...]) -> list[memoryview]:
    """The frames among the arguments, if that is what they are."""
    return [each for some in arguments if isinstance(some, list) for each in some]


def test_a_column_that_changes_its_kind_gets_a_column_of_its_own(workspace: Workspace, log: Log) -> None:
    for kind, value in (("number", 1.0), ("text", "one")):
        entry = EntryFrame(1, "rides", 1, "m", (1,), ("primary",), ("x",), (kind,))  # type: ignore[arg-type]
        frame = RowFrame(1, kind, AT, None, 0, [value], [1.0], 5)
        log.writer.append(encoded(frame), rows=1, at=AT, entry=entry)
        log.end()
        assert shipped(log, workspace) == 1
    found = workspace.tables.read("predictions/rides").sort("id")
    assert found.select("x", "x__text").rows() == [(1.0, None), (None, "one")]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    "versions",
    [
        [{"ID": 1.0, "Version": "v", "at": 2.0}],
        [{"a": 1.0, "A": 2.0}, {"A": 3.0, "a": 4.0}, {"A": 5.0}],
        [{"ab": 1.0, "Ab": 2.0, "aB": 3.0, "AB": "four"}, {"AB": "one", "aB": 2.0}],
        [{"id": 1.0, "feature_id": 2.0}],
        [{"x": 1.0, "x__text": 2.0}, {"x": "three"}, {"x": "four", "x__text": "five"}],
    ],
)
def test_features_are_logged_apart_whatever_they_are_called(
    workspace: Workspace, log: Log, versions: list[dict[str, float | str]], apart: bool
) -> None:
    expected = {}
    for number, values in enumerate(versions * 2):
        kinds: Any = tuple("text" if isinstance(value, str) else "number" for value in values.values())
        entry = EntryFrame(number, "rides", 1, "m", (1,), ("primary",), tuple(values), kinds)
        frame = RowFrame(number, f"p{number}", AT, None, 0, list(values.values()), [1.0], 5)
        log.writer.append(encoded(frame), rows=1, at=AT, entry=entry)
        expected[f"p{number}"] = sorted(map(str, values.values()))
        if apart:
            log.end()
            assert shipped(log, workspace) == 1
    log.end()
    shipped(log, workspace)
    assert list(segments(log.folder)) == []
    found = workspace.tables.read("predictions/rides")
    kept = [name for name in found.columns if name not in PREDICTION_SCHEMA]
    said = {
        row["id"]: sorted(str(row[name]) for name in kept if row[name] is not None)
        for row in found.to_dicts()
    }
    assert said == expected
    one = {"p0": found.filter(id="p0"), "again": found.filter(id=f"p{len(versions)}")}
    assert one["p0"].select(kept).equals(one["again"].select(kept))


def test_a_table_that_cannot_be_written_keeps_its_segment_and_no_other(
    workspace: Workspace, log: Log
) -> None:
    tables = Path(workspace.root / "tables")
    (tables / "predictions").mkdir(parents=True)
    (tables / "predictions" / "rides").write_text("in the way")
    log.write(row(1))
    log.end()
    log.write(label(1))
    log.end()
    assert shipped(log, workspace) == 1
    assert len(list(segments(log.folder))) == 1
    assert counts(workspace) == (1, 1, 0)
    (tables / "predictions" / "rides").unlink()
    assert shipped(log, workspace) == 1
    assert workspace.tables.read("predictions/rides").height == 1


def test_ship_all_ships_what_dead_gateways_left_and_can_be_asked_again(
    workspace: Workspace, log: Log
) -> None:
    ship_all(workspace)
    log.write(row(1))
    log.end()
    for _ in range(2):
        ship_all(workspace)
        assert workspace.tables.read("predictions/rides").height == 1


def test_one_process_ships_a_folder_at_a_time(tmp_path: Path) -> None:
    with ShipperLock(tmp_path) as one, ShipperLock(tmp_path) as other:
        assert one.acquire()
        assert one.acquire()
        assert not other.acquire()
    with ShipperLock(tmp_path) as third:
        assert third.acquire()
