"""Write docs/performance.md: where the time of a request goes, and what the last benchmark said.

python scripts/make_performance_page.py

It replays requests for a minute or so, on whatever machine it runs on. The tables of the benchmark are those
that `make bench-serving ARGS=--record` wrote.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RECORDED = ROOT / "benchmarks" / "serving" / "recorded.txt"
MADE = "<!-- made by scripts/make_performance_page.py -->"

BEGINNING = """
Here is where the time of a prediction goes, and how the gateway compares with other model servers and
with the least that a server could do. All of it is measured on one small machine that did other work as
well, so look at what stands to what, and measure again on your own:

<!-- no-run: it takes minutes -->

```bash
make bench-serving ARGS=--record
python scripts/make_performance_page.py
```
"""

ONE_ROW = """
## One request, one row

A row of 30 numbers for a scaler with a logistic regression, through ONNX Runtime; all times are
microseconds of processor time for one request. The gateway runs in one process without HTTP for this,
each request alone, and each stage is measured by itself, again and again, so that it is as fast as it
can be. "All between" is what is left: finding the address and the protocol, checking who asks, reading
the body, the objects that carry a request from stage to stage, limits, deadlines and counts; and what a
stage loses in the processor's caches when others ran before it. HTTP is the gateway's own (see
[the decision](decisions/0010-the-gateway-speaks-http-itself.md)) answering always the same, over 16
connections; that is mostly the system's network calls.
"""

TOGETHER = """
## Company makes a request cheaper

Requests that are ready in the same turn of the event loop share one call of the model and one write of
the log; nobody waits for company. Microseconds of processor time for each request, without HTTP, by how
many were ready together:
"""

BATCHES = """
## A thousand rows in one request

Milliseconds of processor time for 1,000 rows of 30 numbers in one request, checked and logged like any
other, without HTTP. JSON itself is most of it, so large batches belong into the binary tensors of the
Open Inference Protocol, or into a batch job.
"""

BESIDE = """
## Beside other servers

The tables of the last run of the benchmark. Every figure that was aimed at stands with its aim, and what
was missed is said at the end. The gateway does more than those beside it: it checks each row against the
model's signature, writes each prediction to its log before it answers, and ships the log into tables
meanwhile, in a process apart whose processor time and memory are counted. "v2" is the Open Inference
Protocol. The bare limits are [Granian](https://github.com/emmett-framework/granian) with nothing but the
decoding of JSON and the model, and the same on the gateway's own HTTP. Memory is told
soon after the first answer, when not every process has loaded all it needs, and after the load, which is
what a machine has to have. Where other programs kept the machine's two cores busy, requests a second say
little, and the ratio "by CPU" says more.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown; all columns but the first are numbers."""
    return [
        f"| {' | '.join(head)} |",
        f"|---|{'---:|' * (len(head) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def one_row(profile: Mapping[str, Any]) -> list[str]:
    """The stages of one request, in both protocols."""
    protocols = profile["protocols"]
    stages = list(dict.fromkeys(part["name"] for each in protocols for part in each["parts"]))
    times = [{part["name"]: part["time"] for part in each["parts"]} for each in protocols]
    rows = [
        [stage, *(f"{found[stage]:.1f}" if stage in found else "" for found in times)] for stage in stages
    ]
    rest = [each["whole"] - sum(found.values()) for each, found in zip(protocols, times, strict=True)]
    rows.append(["all between", *(f"{left:.1f}" for left in rest)])
    rows.append(["**the gateway, without HTTP**", *(f"**{each['whole']:.1f}**" for each in protocols)])
    if profile["http"] is not None:
        rows.append(["HTTP", *(f"{profile['http']:.1f}" for _ in protocols)])
    return table(["stage", *(each["name"] for each in protocols)], rows)


def together(profile: Mapping[str, Any]) -> list[str]:
    """What company changes."""
    rows = [
        [str(each["together"]), *(f"{each[name]:.1f}" for name in ("request", "model", "write"))]
        for each in profile["company"]
    ]
    return table(
        ["ready together", "all of a request", "of it the model", "of it the write of the log"], rows
    )


def batches(profile: Mapping[str, Any]) -> list[str]:
    """Requests for many rows."""
    rows = [[part["name"], f"{part['time'] / 1000:.2f}"] for part in profile["batches"]]
    return table(["request", "ms"], rows)


def page(profile: Mapping[str, Any], recorded: str) -> str:
    """The whole page."""
    lines = [MADE, "", "# Performance", BEGINNING.rstrip(), ONE_ROW, *one_row(profile)]
    lines += [TOGETHER, *together(profile), BATCHES, *batches(profile)]
    if recorded:
        lines += [BESIDE, "```text", recorded.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Replay, and write the page."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.stages"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    recorded = RECORDED.read_text() if RECORDED.exists() else ""
    PAGE.write_text(page(json.loads(done.stdout), recorded))
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
