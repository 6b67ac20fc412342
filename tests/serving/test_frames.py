from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.serving.frames import (
    EntryFrame,
    FailureFrame,
    Frame,
    LabelFrame,
    MatrixFrame,
    RowFrame,
    RowsFrame,
    encoded,
    scan,
)

SOME = memoryview(np.array([1.5, np.nan]).tobytes())
ENTRY = EntryFrame(7, "rides", 3, "m", (1, 2), ("primary", "shadow"), ("x", "s"), ("number", "text"))
FRAMES: list[Frame] = [
    ENTRY,
    RowFrame(7, "id", 1_300_000_000_000_000, "key", 0, [1.5, "winter"], [1.0, None], 80),
    RowsFrame(7, "id", -5, None, [0, 1], [[1, 2], None], [[1.0, 2.0], None], 80),
    MatrixFrame(7, "id", 5, 2, 1, "key", [0, 1], SOME, [SOME, None], 80),
    MatrixFrame(7, "id", 5, 2, 1, None, 1, SOME[:8], [None, SOME], 80),
    LabelFrame("rides", 3, 17, id="id"),
    LabelFrame("rides", "yes", 17, key="key", at=16),
    FailureFrame("rides", 17, "model_failed", 2),
]
WHOLE = b"".join(map(encoded, FRAMES))
ENDS = [sum(len(encoded(frame)) for frame in FRAMES[:count]) for count in range(len(FRAMES) + 1)]


def test_frames_are_read_as_they_were_written() -> None:
    found = scan(WHOLE)
    assert found.frames == FRAMES
    assert found.end == len(WHOLE)
    assert not found.damaged


@given(st.integers(0, len(WHOLE)))
def test_a_log_cut_anywhere_gives_its_whole_frames_and_is_not_damaged(cut: int) -> None:
    found = scan(WHOLE[:cut])
    assert found.end == max(end for end in ENDS if end <= cut)
    assert found.frames == FRAMES[: ENDS.index(found.end)]
    assert not found.damaged


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_gives_no_frame_that_was_not_written(place: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[place] ^= change
    found = scan(bytes(data))
    broken = sum(end <= place for end in ENDS) - 1
    assert found.frames == FRAMES[:broken]


def test_zeros_that_a_loss_of_power_left_behind_are_damage_and_no_frames() -> None:
    found = scan(WHOLE + bytes(4096))
    assert found.frames == FRAMES
    assert found.damaged


def test_a_matrix_is_read_in_the_size_of_its_own_floats() -> None:
    for kind in ("<f4", "<f8"):
        given = np.array([[1.5, 2.0, np.nan], [0.1, -3.0, 4.0]], dtype=kind)
        frame = MatrixFrame(7, "id", 5, 2, 3, None, 0, memoryview(given.tobytes()), [], 80)
        (found,) = scan(encoded(frame)).frames
        assert isinstance(found, MatrixFrame)
        assert found.numbers().dtype == kind
        np.testing.assert_array_equal(found.numbers(), given)
