"""`trimtab why`: the evidence behind a loop's decisions."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli.group import single_command
from trimtab.cli.output import AsJson, cell, print_json, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.loop.loops import Loops, Why

app = single_command()


@app.command()
def why(
    loop: Annotated[str, typer.Argument(help="The loop's name.")],
    cycle: Annotated[str | None, typer.Argument(help="A cycle's number (by default the newest).")] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Print every decision about a cycle and the numbers that it was made on."""
    with open_workspace(project) as workspace:
        found = Loops(workspace).why(loop, cycle)
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: Why) -> None:
    cycle = found.cycle
    say(f"{cycle.loop}, cycle {cycle.number}: {cycle.state.value.replace('_', ' ')}")
    for decision in found.decisions:
        say(f"\n{cell(decision.at)}  trigger {decision.trigger}: {decision.reason}")
        _numbers(decision.numbers)
    for move in found.moves:
        arrow = f"{move.from_state} -> {move.to_state}" if move.from_state else f"begins as {move.to_state}"
        arrow = arrow.replace("_", " ")
        say(f"\n{cell(move.at)}  {arrow}, by {move.actor}: {move.reason}")
        _numbers(move.evidence)


def _numbers(evidence: object, indent: str = "    ") -> None:
    """Evidence as indented lines; a list of plain values stays on one."""
    if isinstance(evidence, dict):
        for name, value in evidence.items():
            if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
                say(f"{indent}{name}:")
                _numbers(value, indent + "    ")
            else:
                say(f"{indent}{name}: {cell(value)}")
    elif isinstance(evidence, list):
        for item in evidence:
            if isinstance(item, dict):
                say(f"{indent}- {', '.join(f'{name} {cell(value)}' for name, value in item.items())}")
            else:
                say(f"{indent}- {cell(item)}")
