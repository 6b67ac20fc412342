"""The page about one endpoint for people: its columns, and how to call it. One file, nothing loaded."""

from __future__ import annotations

import json
import shlex
from html import escape
from typing import Any

from trimtab.models.signature import Column
from trimtab.serving.loaded_endpoints import LoadedEndpoint

MOST_CATEGORIES = 60

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
tr { border-bottom: 1px solid #8884; }
pre { background: #8882; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
"""


def endpoint_page(endpoint: LoadedEndpoint, host: str) -> str:
    """The page, as HTML. `host` is where its reader reaches the gateway, such as "127.0.0.1:8601"."""
    predictor = endpoint.predictors[endpoint.primary]
    example = {
        name: predictor.example[name][0] for name in predictor.signature.names if name in predictor.example
    }
    rows = "".join(_row(column, example.get(column.name)) for column in predictor.signature.columns)
    arms = "".join(
        f"<tr><td>{arm.version}</td><td>{arm.role}</td><td>{arm.share:g} %</td></tr>"
        for arm in endpoint.route.arms
    )
    name = endpoint.name
    calls = "".join(
        f"<h3>{escape(title)}</h3><pre>{escape(_curl(host, path, body))}</pre>"
        for title, path, body in (
            ("Plain JSON", f"/v1/endpoints/{name}/predict", {"row": example}),
            (
                "MLflow, SageMaker, Databricks",
                f"/endpoints/{name}/invocations",
                {"dataframe_split": {"columns": list(example), "data": [list(example.values())]}},
            ),
            ("TensorFlow Serving, KServe", f"/v1/models/{name}:predict", {"instances": [example]}),
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(name)}</h1>
<p>Predicts <b>{escape(predictor.target)}</b> with the model <b>{escape(endpoint.route.model)}</b>.
<a href="openapi.json">OpenAPI document</a></p>
<h2>Columns</h2>
<table>
<tr><th>column</th><th>type</th><th>may be missing</th><th>example</th><th>categories</th></tr>
{rows}
</table>
<h2>Versions that score</h2>
<table>
<tr><th>version</th><th>role</th><th>answers</th></tr>
{arms}
</table>
<h2>Calls</h2>
{calls}
<p>Each answer has an id, by which <code>/v1/endpoints/{escape(name)}/feedback</code> takes what came true.
Where the gateway wants a token, send it as <code>Authorization: Bearer TOKEN</code>.</p>
</body>
</html>
"""


def _row(column: Column, example: Any) -> str:
    shown = ", ".join(str(value) for value in column.categories[:MOST_CATEGORIES])
    if len(column.categories) > MOST_CATEGORIES:
        shown += f" and {len(column.categories) - MOST_CATEGORIES} more"
    kind: str = column.kind
    if column.categories:
        kind += " of texts" if isinstance(column.categories[0], str) else " of whole numbers"
        kind += ", no others" if column.closed else ""
    cells = (column.name, kind, "yes" if column.nullable else "no", json.dumps(example), shown)
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>\n"


def _curl(host: str, path: str, body: dict[str, Any]) -> str:
    document = json.dumps(body, ensure_ascii=False)
    return f"curl -s {shlex.quote(f'http://{host}{path}')} -d {shlex.quote(document)}"
