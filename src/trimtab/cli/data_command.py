"""`trimtab data`: datasets, their versions and rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_fields, print_json, print_rows, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.data.contracts import contract_of
from trimtab.data.datasets import Datasets
from trimtab.data.row_formats import read_rows_file
from trimtab.data.sources import Sources
from trimtab.data.spec import ContractSpec
from trimtab.digest import digest_file
from trimtab.errors import InvalidInputError
from trimtab.pipelines.project import import_project_object
from trimtab.workspace import Workspace

app = command_group("Datasets: versions, rows, sources.")

Name = Annotated[str, typer.Argument(help="The dataset's name.")]
Contract = Annotated[str | None, typer.Option(help="The contract that rows must meet, as module:name.")]


@app.command()
def create(
    name: Name,
    project: Project = HERE,
    time: Annotated[str | None, typer.Option(help="The column with each row's event time.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="A column that says what a row is about.")] = None,
    contract: Contract = None,
    as_json: AsJson = False,
) -> None:
    """Make a dataset; without a contract it keeps the columns and types of its first append."""
    with open_workspace(project) as workspace:
        rules = None if contract is None else _contract(workspace, contract)
        made = Datasets(workspace).create(name, contract=rules, time=time, key=key or [])
    if as_json:
        print_json(made)
    else:
        say(f"The dataset '{name}' is there. Append rows with: trimtab data append {name} FILE")


@app.command()
def contract(
    name: Name,
    reference: Annotated[str, typer.Argument(help="The contract as module:name.")],
    project: Project = HERE,
    reason: Annotated[str, typer.Option(help="Why; it stands in the journal.")] = "",
) -> None:
    """Give a dataset another contract, for the rows that are appended from now on."""
    with open_workspace(project) as workspace:
        Datasets(workspace).set_contract(name, _contract(workspace, reference), reason=reason)
    say(f"Rows appended to '{name}' must meet {reference} from now on.")


@app.command()
def append(
    name: Name,
    files: Annotated[list[Path], typer.Argument(help="Parquet, Arrow, CSV, JSON or NDJSON files.")],
    project: Project = HERE,
    key: Annotated[str | None, typer.Option(help="Names this append (by default the file's digest).")] = None,
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine", help="Put rows that break the contract aside and append the others."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Append the rows of files, one version a file; the same file twice is appended once."""
    if key is not None and len(files) > 1:
        raise InvalidInputError("One --key names one append.", hint="Give one file, or leave --key out.")
    made = []
    with open_workspace(project) as workspace:
        for path in files:
            rows = read_rows_file(path, Datasets(workspace).types(name))
            version = Datasets(workspace).append(
                name,
                rows,
                key=key or digest_file(path),
                on_violation="quarantine" if quarantine else "refuse",
            )
            made.append(version)
            if not as_json:
                aside = f", {version.quarantined:,} in quarantine" if version.quarantined else ""
                say(f"{name} version {version.number}: {version.added:,} rows from {path}{aside}")
    if as_json:
        print_json(made)


@app.command("list")
def list_datasets(project: Project = HERE, as_json: AsJson = False) -> None:
    """List all datasets."""
    with open_workspace(project) as workspace:
        found = Datasets(workspace).list()
    if as_json:
        print_json(found)
    else:
        print_rows(
            found, ["name", "time", "key", "created_at", "created_by"], empty="There is no dataset yet."
        )


@app.command()
def show(name: Name, project: Project = HERE, as_json: AsJson = False) -> None:
    """Show a dataset and its versions, the newest first."""
    with open_workspace(project) as workspace:
        dataset = Datasets(workspace).get(name)
        versions = list(reversed(Datasets(workspace).versions(name)))
    if as_json:
        print_json({"dataset": dataset, "versions": versions})
        return
    print_fields({"name": dataset.name, "time": dataset.time, "key": dataset.key})
    columns = ["number", "rows", "added", "quarantined", "time_min", "time_max", "created_at", "created_by"]
    print_rows(versions, columns, empty="It has no version yet.")


@app.command()
def read(
    name: Name,
    output: Annotated[Path, typer.Argument(help="A .parquet or .csv file to write.")],
    project: Project = HERE,
    version: Annotated[int | None, typer.Option(min=1, help="A version (by default the newest).")] = None,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="The rows put aside instead.")] = False,
) -> None:
    """Write a version's rows to a file."""
    if output.suffix not in {".parquet", ".csv"}:
        raise InvalidInputError(f"{output} ends neither in .parquet nor in .csv.")
    with open_workspace(project) as workspace:
        datasets = Datasets(workspace)
        rows = datasets.quarantined(name) if quarantined else datasets.read(name, version)
    with output.open("wb") as file:
        if output.suffix == ".csv":
            rows.write_csv(file)
        else:
            rows.write_parquet(file)
    say(f"{rows.height:,} rows in {output}")


@app.command()
def watch(
    name: Name,
    folder: Annotated[
        Path, typer.Argument(help="A folder that new files are dropped into.", file_okay=False)
    ],
    project: Project = HERE,
) -> None:
    """Let the loop look into a folder for new files of rows, each appended once."""
    with open_workspace(project) as workspace:
        Sources(workspace).register(name, folder.resolve())
    say(f"New files in {folder} will be appended to '{name}'.")


@app.command()
def sources(name: Name, project: Project = HERE, as_json: AsJson = False) -> None:
    """List the folders that feed a dataset, and the files of theirs that could not be used."""
    with open_workspace(project) as workspace:
        watched = Sources(workspace).list(name)
        files = Sources(workspace).files(name)
    if as_json:
        print_json({"sources": watched, "files": files})
        return
    print_rows(
        watched, ["folder", "every", "on_violation", "looked_at", "problem"], empty="No folder feeds it."
    )
    refused = [file for file in files if file.reason]
    if refused:
        print_rows(refused, ["name", "at", "reason"], empty="")


@app.command()
def retry(name: Name, project: Project = HERE) -> None:
    """Let the files that could not be used be tried again at the next look."""
    with open_workspace(project) as workspace:
        count = Sources(workspace).retry(name)
    say(f"{count} files will be tried again.")


def _contract(workspace: Workspace, reference: str) -> ContractSpec:
    """The contract of this name in the project, as data. Runs the project's code in this process."""
    return contract_of(import_project_object(workspace.project, reference))[0]
