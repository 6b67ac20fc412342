"""The demo's report as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7a; --paper: #ffffff; --rule: #e3e8ed;
  --frozen: #c2410c; --served: #0f766e; --refit: #64748b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa8b5; --paper: #10161c; --rule: #2a343e;
  --frozen: #fb923c; --served: #2dd4bf; --refit: #94a3b8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1000px;
  margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
p.lead { color: var(--soft); margin: 0 0 1.5rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; }
.tile { border: 1px solid var(--rule); border-radius: 8px; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; } .tile span { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.number, th.number { text-align: right; } td:not(:last-child) { white-space: nowrap; }
.chart { width: 100%; height: auto; margin-top: 1.25rem; }
.chart .grid { stroke: var(--rule); } .chart .lane { stroke: var(--rule); stroke-dasharray: 2 4; }
.chart text { font: 12px system-ui, sans-serif; fill: var(--soft); } .chart text.label { font-weight: 600; }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.line.frozen { stroke: var(--frozen); } .line.served { stroke: var(--served); stroke-width: 3.5; }
.line.refit { stroke: var(--refit); stroke-dasharray: 5 5; }
.dot.frozen { fill: var(--frozen); } .dot.served { fill: var(--served); } .dot.refit { fill: var(--refit); }
.chart text.frozen { fill: var(--frozen); } .chart text.served { fill: var(--served); }
.chart text.refit { fill: var(--refit); }
.mark { stroke: var(--paper); stroke-width: 1.5; } .mark.drift { fill: #8b5cf6; } .mark.alert { fill: #eab308; }
.mark.cycle { fill: #3b82f6; } .mark.promotion { fill: #16a34a; } .mark.rejection { fill: #dc2626; }
.mark.rollback { fill: #db2777; }
footer { color: var(--soft); margin-top: 2.5rem; font-size: .9rem; }
"""


def tile(value: str, label: str) -> str:
    """One figure with what it is."""
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    """A table; `numbers` are the columns that are set to the right."""
    right = set(numbers)

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if place in right else ''}>{escape(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", columns)}</tr></thead><tbody>{body}</tbody></table></div>'


def page(*, title: str, lead: str, body: Sequence[str], footer: str) -> str:
    """The whole page; `body` holds elements, the other texts are escaped."""
    content = "\n".join(body)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>
{content}
<footer>{escape(footer)}</footer></body></html>
"""
