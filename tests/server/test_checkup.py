"""What `trimtab doctor` finds of a workspace, well or ill."""

from __future__ import annotations

from pathlib import Path

from trimtab.server.checkup import Finding, examine
from trimtab.workspace import Workspace


def found(workspace: Workspace) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(workspace.project)}


def test_a_fresh_workspace_is_well(workspace: Workspace) -> None:
    assert {name for name, finding in found(workspace).items() if finding.status == "problem"} == set()


def test_a_place_that_cannot_be_used_is_a_problem_and_no_bug(tmp_path: Path) -> None:
    (tmp_path / "trimtab.toml").touch()
    (tmp_path / ".trimtab").write_text("a file")
    last = list(examine(tmp_path))[-1]
    assert (last.check, last.status) == ("workspace", "problem")
    assert ".trimtab" in last.found


def test_a_route_that_cannot_be_served_and_a_loop_that_is_stuck_are_problems(workspace: Workspace) -> None:
    workspace.instances.beat("g", "gateway", detail={"failures": {"rides": "version 2 needs onnxruntime"}})
    workspace.instances.beat("c", "controller", detail={"failures": {"bikes": "KeyError: 'at'"}})
    findings = found(workspace)
    assert (findings["routes"].status, findings["loops"].status) == ("problem", "problem")
    assert "rides: version 2 needs onnxruntime" in findings["routes"].found
    assert "bikes: KeyError: 'at'" in findings["loops"].found
    assert findings["roles"].status == "warning"
