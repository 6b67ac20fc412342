"""MLflow's registry store over a workspace in this process.

A version is a snapshot of its source's files at the moment it is made; what is governed keeps its gates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from mlflow.entities.model_registry import (
    ModelVersion,
    ModelVersionTag,
    RegisteredModel,
    RegisteredModelAlias,
    RegisteredModelTag,
)
from mlflow.entities.model_registry.model_version_stages import (
    ALL_STAGES,
    DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS,
    get_canonical_stage,
)
from mlflow.exceptions import MlflowException
from mlflow.prompt.registry_utils import has_prompt_tag
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import (
    SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD,
)
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
    _validate_model_version,
    _validate_model_version_tag,
    _validate_registered_model_tag,
)

from trimtab.errors import NotFoundError
from trimtab.models import registry_search, versions
from trimtab.models.addresses import artifacts_address
from trimtab.models.contents import address_of, is_address, tree_at, tree_of_address
from trimtab.models.mlflow_plugin.entities import milliseconds
from trimtab.models.mlflow_plugin.errors import as_mlflow, refusing, refusing_the_rest
from trimtab.models.mlflow_plugin.stored_workspace import StoredWorkspace
from trimtab.models.registry import Registry
from trimtab.models.sources import logged_model_in, place_of_source
from trimtab.store.database import Transaction
from trimtab.tracking import logged_models

LATEST_ALIAS = "latest"


@refusing_the_rest
class RegistryStore(AbstractStore):
    """Registered models, their versions, aliases and tags."""

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        super().__init__(store_uri, tracking_uri)  # type: ignore[no-untyped-call]  # MLflow's
        self._stored = StoredWorkspace(store_uri)

    # Registered models

    def create_registered_model(
        self,
        name: str,
        tags: list[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """See MLflow."""
        _validate_model_name(name)
        values = {tag.key: tag.value for tag in tags or []}
        for key, value in values.items():
            _validate_registered_model_tag(key, value)
        if has_prompt_tag(values):
            refusing("create_prompt")(self)
        made = self._change(
            lambda registry, tx: registry.create_model(tx, name, description=description or "", tags=values)
        )
        return self._model(made, [])

    def update_registered_model(
        self, name: str, description: str, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """See MLflow."""
        self._change(lambda registry, tx: registry.describe(tx, name, description or ""))
        return self.get_registered_model(name)

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """See MLflow."""
        _validate_model_name(new_name)
        self._change(lambda registry, tx: registry.rename_model(tx, name, new_name))
        return self.get_registered_model(new_name)

    def delete_registered_model(self, name: str) -> None:
        """See MLflow."""
        self._change(lambda registry, tx: registry.delete_model(tx, name))

    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """See MLflow."""
        _check_page_size(max_results, SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD)
        with as_mlflow(), self._stored.open.read() as connection:
            page = registry_search.search_models(
                connection,
                filter=filter_string or "",
                order_by=order_by or (),
                limit=max_results,
                page_token=page_token or "",
            )
        models = [
            self._model(found.model, [self._version(each) for each in found.newest]) for found in page.models
        ]
        return PagedList(models, page.next_page_token or None)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """See MLflow."""
        with as_mlflow():
            registry = Registry(self._stored.open)
            model = registry.model(name)
            return self._model(model, [self._version(each) for each in registry.newest_in_stages(name)])

    def get_latest_versions(self, name: str, stages: list[str] | None = None) -> list[ModelVersion]:
        """See MLflow."""
        wanted = [get_canonical_stage(stage) for stage in stages or ALL_STAGES]
        with as_mlflow():
            found = Registry(self._stored.open).newest_in_stages(name)
        return [self._version(each) for each in found if each.stage in wanted]

    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """See MLflow."""
        _validate_registered_model_tag(tag.key, tag.value)
        self._change(lambda registry, tx: registry.set_tag(tx, name, tag.key, tag.value))

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """See MLflow."""
        self._change(lambda registry, tx: registry.delete_tag(tx, name, key))

    # Versions

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: list[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """See MLflow. A version is its source's files as they are now, whatever becomes of them."""
        _validate_model_name(name)
        values = {tag.key: tag.value for tag in tags or []}
        for key, value in values.items():
            _validate_model_version_tag(key, value)
        with as_mlflow():
            made_of = model_id or logged_model_in(source)
            if made_of is not None and run_id is None:
                with self._stored.open.read() as connection:
                    run_id = logged_models.find(connection, made_of).run
            Registry(self._stored.open).model(name)  # before anything is copied
            digest = self._content(source, local_model_path)
        made = self._change(
            lambda registry, tx: registry.register(
                tx,
                name,
                digest,
                run_id=run_id,
                source=source,
                description=description or "",
                tags=values,
            )
        )
        return self._version(made)

    def update_model_version(self, name: str, version: str, description: str | None = None) -> ModelVersion:
        """See MLflow."""
        number = version_number(version)
        self._change(lambda registry, tx: registry.describe(tx, name, description or "", version=number))
        return self.get_model_version(name, version)

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> ModelVersion:
        """See MLflow. For a governed model Production is what `champion` is."""
        number, canonical = version_number(version), get_canonical_stage(stage)
        if archive_existing_versions and canonical not in DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS:
            raise MlflowException.invalid_parameter_value(
                "Model version transition cannot archive existing model versions because "
                f"'{stage}' is not an Active stage. Valid stages are {DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS}"
            )
        moved = self._change(
            lambda registry, tx: registry.set_stage(
                tx, name, number, canonical, archive_existing=bool(archive_existing_versions)
            )
        )
        return self._version(moved)

    def delete_model_version(self, name: str, version: str) -> None:
        """See MLflow."""
        number = version_number(version)
        self._change(lambda registry, tx: registry.delete_version(tx, name, number))

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """See MLflow."""
        with as_mlflow():
            return self._version(Registry(self._stored.open).get_version(name, version_number(version)))

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """See MLflow: the address of the version's own content, or of its source elsewhere."""
        with as_mlflow():
            found = Registry(self._stored.open).get_version(name, version_number(version))
            if is_address(self._stored.open, found.digest):
                return address_of(self._stored.open, found.digest)  # also that of a copy
        return artifacts_address(self._stored.project, "trees", found.digest)

    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """See MLflow."""
        _check_page_size(max_results, SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD)
        with as_mlflow(), self._stored.open.read() as connection:
            page = registry_search.search_versions(
                connection,
                filter=filter_string or "",
                order_by=order_by or (),
                limit=max_results,
                page_token=page_token or "",
            )
        # As in MLflow, what is found says nothing of its aliases.
        found = [self._version(msgspec.structs.replace(each, aliases=())) for each in page.versions]
        return PagedList(found, page.next_page_token or None)

    def set_model_version_tag(self, name: str, version: str, tag: ModelVersionTag) -> None:
        """See MLflow."""
        _validate_model_version_tag(tag.key, tag.value)
        number = version_number(version)
        self._change(lambda registry, tx: registry.set_tag(tx, name, tag.key, tag.value, version=number))

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """See MLflow."""
        number = version_number(version)
        self._change(lambda registry, tx: registry.delete_tag(tx, name, key, version=number))

    # Aliases

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """See MLflow. The champion of a governed model must have passed its gates."""
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
        number = version_number(version)
        self._change(lambda registry, tx: registry.set_alias(tx, name, alias, number))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """See MLflow."""
        _validate_model_alias_name(alias)
        self._change(lambda registry, tx: registry.delete_alias(tx, name, alias))

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """See MLflow."""
        _validate_model_alias_name(alias)
        with as_mlflow():
            registry = Registry(self._stored.open)
            if alias.lower() == LATEST_ALIAS:
                number = max((each.version for each in registry.newest_in_stages(name)), default=None)
            else:
                number = registry.model(name).aliases.get(alias)
            if number is None:
                raise MlflowException.invalid_parameter_value(f"Registered model alias {alias} not found.")
            return self._version(registry.get_version(name, number))

    def _content(self, source: str, local_path: str | None) -> str:
        """The digest of what a version is made of: the files at its source, or the address alone where the
        source is on no disk and in no workspace of ours, or empty. Such a version passes no gate."""
        workspace = self._stored.open
        folder = Path(local_path or local_file_uri_to_path(source))
        if folder.is_dir():
            return workspace.blobs.put_tree(folder)
        place = place_of_source(Registry(workspace), workspace.project, source)
        try:
            digest = None if place is None else tree_at(workspace, place)
        except NotFoundError:
            if place is None or place.kind != "runs":
                raise
            digest = None  # MLflow asks nobody whether the run is there
        return digest or tree_of_address(workspace, source)

    def _change(self, work: Callable[[Registry, Transaction], Any]) -> Any:
        return self._stored.write(lambda tx: work(Registry(self._stored.open), tx))

    def _model(self, model: versions.RegisteredModel, latest: list[ModelVersion]) -> RegisteredModel:
        return RegisteredModel(
            name=model.name,
            creation_timestamp=milliseconds(model.created_at),
            last_updated_timestamp=milliseconds(model.updated_at),
            description=model.description or None,
            latest_versions=latest,
            tags=[RegisteredModelTag(key, value) for key, value in model.tags.items()],
            aliases=[RegisteredModelAlias(alias, str(number)) for alias, number in model.aliases.items()],
        )

    def _version(self, version: versions.ModelVersion) -> ModelVersion:
        return ModelVersion(
            name=version.model,
            version=str(version.version),
            creation_timestamp=milliseconds(version.created_at),
            last_updated_timestamp=milliseconds(version.created_at),
            description=version.description or None,
            user_id=version.actor,
            current_stage=version.stage,
            source=version.source,
            run_id=version.run_id,
            tags=[ModelVersionTag(key, value) for key, value in version.tags.items()],
            aliases=list(version.aliases),
            model_id=logged_model_in(version.source),
        )


def version_number(version: str | int) -> int:
    """A version's number; raises MlflowException if it is none."""
    _validate_model_version(version)  # MLflow 3.6 answers nothing
    return int(version)


def _check_page_size(max_results: object, most: int) -> None:
    if not isinstance(max_results, int) or not 1 <= max_results <= most:
        raise MlflowException.invalid_parameter_value(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be at least 1, and "
            f"at most {most}."
        )


for _name in [name for name in dir(AbstractStore) if "prompt" in name and not name.startswith("__")]:
    setattr(RegistryStore, _name, refusing(_name))
