"""The prediction log as a gateway worker writes it: what to do when it cannot."""

from __future__ import annotations

from typing import Literal

from trimtab.errors import UnavailableError
from trimtab.serving.frames import EntryFrame, LabelFrame, encoded
from trimtab.serving.segments import SegmentWriter

WhenFull = Literal["refuse", "drop", "sample"]

SAMPLED_ABOVE = 0.5
SAMPLED_EACH = 10


class PredictionLog:
    """Writes predictions and labels before they are acknowledged.

    `when_full`: "refuse" answers no request that cannot be logged, "drop" answers it and counts it in
    `dropped`, "sample" keeps one of ten once the log holds half of what it may, and drops when it is full.
    Labels are always refused then, for taking one is a promise to keep it.
    """

    def __init__(self, writer: SegmentWriter, when_full: WhenFull) -> None:
        self._writer = writer
        self._when_full = when_full
        self.predictions = 0
        self.labels = 0
        self.refused = 0
        self.dropped = 0
        self.trouble = ""
        self._turn = 0

    def predicted(self, frame: bytes, *, rows: int, at: int, entry: EntryFrame) -> None:
        """Keep a request's rows; raises UnavailableError where they cannot be kept and must be."""
        if self._when_full == "sample" and self._writer.fullness > SAMPLED_ABOVE:
            self._turn += 1
            if self._turn % SAMPLED_EACH:
                self.dropped += rows
                self.trouble = "The prediction log is more than half full, and keeps one record of ten."
                return
        try:
            self._writer.append(frame, rows=rows, at=at, entry=entry)
        except UnavailableError as error:
            self.trouble = str(error)
            if self._when_full == "refuse":
                self.refused += rows
                raise
            self.dropped += rows
        else:
            self.predictions += rows
            self.trouble = ""

    def learned(self, labels: list[LabelFrame]) -> None:
        """Keep labels, all of them or (UnavailableError) none."""
        try:
            self._writer.append(b"".join(map(encoded, labels)), rows=len(labels), at=labels[0].received)
        except UnavailableError as error:
            self.trouble = str(error)
            self.refused += len(labels)
            raise
        self.labels += len(labels)
        self.trouble = ""

    def failed(self, frame: bytes, *, at: int) -> None:
        """Keep the record of a failure, if there is room."""
        try:
            self._writer.append(frame, rows=0, at=at)
        except UnavailableError as error:
            self.trouble = str(error)
