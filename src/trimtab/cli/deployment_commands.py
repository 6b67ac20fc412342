"""`trimtab endpoint deploy`, `rollback` and `delete`: what answers where no loop decides it."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli.output import say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.errors import InvalidInputError, RefusedError
from trimtab.loop.deployment import Deployments
from trimtab.models.contents import address_of, is_address
from trimtab.models.policy import Override
from trimtab.models.registry import Registry
from trimtab.models.versions import ModelVersion
from trimtab.server.standalone import loaded
from trimtab.workspace import Workspace

Name = Annotated[str, typer.Argument(help="The endpoint's name.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the journal.")]


def deploy(
    name: Name,
    model: Annotated[str, typer.Option(help="The registered model.")],
    version: Annotated[int | None, typer.Option(min=1, help="The version's number.")] = None,
    alias: Annotated[str | None, typer.Option(help="An alias of the version, instead.")] = None,
    project: Project = HERE,
    reason: Reason = "",
    override_by: Annotated[
        str | None,
        typer.Option(help="Your name, to deploy without a passing gate report; needs --reason."),
    ] = None,
) -> None:
    """Let one version answer everything at an endpoint, which is made if need be.

    It is loaded first, and must answer its own example. An alias is looked up once: the endpoint keeps the
    version when the alias moves on. An endpoint of a loop is refused, and so is a version of a governed model
    that could not become its champion.
    """
    if (version is None) == (alias is None):
        raise InvalidInputError("A version is named in one way.", hint="Give --version or --alias.")
    override = None if override_by is None else Override(override_by, reason)
    with open_workspace(project) as workspace:
        registry = Registry(workspace)
        if alias is not None:
            found = registry.alias(model, alias)
        else:
            assert version is not None
            found = registry.get_version(model, version)
        _check_version(workspace, found)
        deployments = Deployments(workspace)
        generation = workspace.write(
            lambda tx: deployments.deploy(tx, name, model, found.version, reason=reason, override=override)
        )
    say(f"Version {found.version} of '{model}' answers at '{name}' (generation {generation}).")


def rollback(
    name: Name,
    to: Annotated[int | None, typer.Option(min=1, help="The generation to go back to.")] = None,
    project: Project = HERE,
    reason: Reason = "",
) -> None:
    """Go back to the route before the present one, or to that of a generation (see `history`)."""
    with open_workspace(project) as workspace:
        deployments = Deployments(workspace)
        route = workspace.write(lambda tx: deployments.rollback(tx, name, to=to, reason=reason))
    arms = ", ".join(f"version {arm.version} ({arm.role})" for arm in route.arms)
    say(f"'{name}' is answered by {arms} of '{route.model}' again, as in generation {route.generation}.")


def delete(name: Name, project: Project = HERE, reason: Reason = "") -> None:
    """Let an endpoint answer no more. What it predicted stays, and so does the model."""
    with open_workspace(project) as workspace:
        deployments = Deployments(workspace)
        workspace.write(lambda tx: deployments.delete(tx, name, reason=reason))
    say(f"There is no endpoint '{name}' any more.")


def _check_version(workspace: Workspace, version: ModelVersion) -> None:
    """Load a version as a gateway would; raises the reason if that fails."""
    if is_address(workspace, version.digest):
        raise RefusedError(
            f"The files of version {version.version} of '{version.model}' are elsewhere, at "
            f"{address_of(workspace, version.digest)}.",
            hint="Fetch them, and register their folder.",
        )
    loaded(workspace, version.digest, version.model).close()
