"""One picture of a replay: the error month by month, and below it a lane for each kind of event. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

import msgspec

WIDTH, PLOT_HEIGHT, LANE_HEIGHT = 960, 300, 24
LEFT, RIGHT, TOP, AXIS = 92, 150, 20, 34

LANES = (
    ("drift", "drift"),
    ("alert", "error alert"),
    ("cycle", "cycle"),
    ("promotion", "promotion"),
    ("rejection", "rejection"),
    ("rollback", "rollback"),
)
"""The kinds of event that have a lane, and their labels."""


class Series(msgspec.Struct, frozen=True):
    """One line: a value for each month ("2011-10"), in the order of time; `style` is a CSS class."""

    label: str
    style: str
    values: dict[str, float]


class Mark(msgspec.Struct, frozen=True):
    """One event: its lane's kind, its event time, and what it was."""

    kind: str
    at: datetime
    text: str


def draw(series: Sequence[Series], marks: Sequence[Mark], *, unit: str) -> str:
    """The picture as an SVG element; `unit` names what the lines measure."""
    months = sorted({month for line in series for month in line.values})
    start, end = month_start(months[0]), month_start(_following(months[-1]))
    top_value = max(value for line in series for value in line.values.values()) * 1.1
    bottom = TOP + PLOT_HEIGHT
    height = bottom + AXIS + LANE_HEIGHT * len(LANES) + 10

    def x(at: datetime) -> float:
        share = (at - start) / (end - start)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return bottom - value / top_value * PLOT_HEIGHT

    def middle(month: str) -> float:
        return (x(month_start(month)) + x(month_start(_following(month)))) / 2

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(unit)} by month" class="chart">'
    ]
    for tick in _ticks(top_value):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    parts.append(f'<text class="tick" x="{LEFT}" y="{TOP - 6}">{escape(unit)}</text>')
    for month in months:
        name = month_start(month).strftime("%b" if not month.endswith("-01") else "%b %Y")
        parts.append(
            f'<text class="tick" x="{middle(month):.1f}" y="{bottom + 18}" text-anchor="middle">{name}</text>'
        )
    placed: list[float] = []
    for line in sorted(series, key=lambda line: -list(line.values.values())[-1]):
        points = " ".join(
            f"{middle(month):.1f},{y(value):.1f}" for month, value in sorted(line.values.items())
        )
        parts.append(f'<polyline class="line {line.style}" points="{points}"/>')
        for month, value in line.values.items():
            parts.append(
                f'<circle class="dot {line.style}" cx="{middle(month):.1f}" cy="{y(value):.1f}" r="3">'
                f"<title>{escape(line.label)}, {month}: {value:.3f}</title></circle>"
            )
        last = max(line.values)
        height_of_label = y(line.values[last]) + 4
        if placed and height_of_label - placed[-1] < 16:
            height_of_label = placed[-1] + 16
        placed.append(height_of_label)
        parts.append(
            f'<text class="label {line.style}" x="{WIDTH - RIGHT + 6}" y="{height_of_label:.1f}">{escape(line.label)}</text>'
        )
    parts.extend(_lanes(marks, x, bottom + AXIS))
    parts.append("</svg>")
    return "\n".join(parts)


def _lanes(marks: Sequence[Mark], x: object, top: int) -> list[str]:
    assert callable(x)
    parts = []
    for number, (kind, label) in enumerate(LANES):
        middle = top + LANE_HEIGHT * number + LANE_HEIGHT / 2
        own = [mark for mark in marks if mark.kind == kind]
        parts.append(f'<line class="lane" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{middle}" y2="{middle}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{label}</text>')
        parts.append(f'<text class="tick" x="{WIDTH - RIGHT + 6}" y="{middle + 4}">{len(own)}</text>')
        for mark in own:
            title = escape(f"{mark.at:%Y-%m-%d %H:%M}  {mark.text}")
            parts.append(
                f'<circle class="mark {kind}" cx="{x(mark.at):.1f}" cy="{middle}" r="5"><title>{title}</title></circle>'
            )
    return parts


def month_start(month: str) -> datetime:
    """The first instant of a month written "2011-10"."""
    return datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)


def _following(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02d}"


def _ticks(top: float) -> list[float]:
    step = next(step for step in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9) if top / step <= 6)
    return [round(step * number, 6) for number in range(int(top / step) + 1)]
