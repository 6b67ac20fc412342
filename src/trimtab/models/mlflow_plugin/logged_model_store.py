"""The part of MLflow's tracking store that keeps logged models: those nobody has registered yet."""

from __future__ import annotations

from typing import Any

from mlflow.entities import LoggedModel, LoggedModelParameter, LoggedModelStatus, LoggedModelTag
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.utils.validation import _validate_logged_model_name

from trimtab.models.mlflow_plugin.entities import STATUSES, experiment_number, logged_model_entity
from trimtab.models.mlflow_plugin.stored_workspace import StoredWorkspace
from trimtab.store.database import Transaction
from trimtab.tracking import logged_models
from trimtab.tracking.run_names import random_name

_WORDS: dict[LoggedModelStatus, logged_models.Status] = {
    LoggedModelStatus.PENDING: "PENDING",
    LoggedModelStatus.READY: "READY",
    LoggedModelStatus.FAILED: "FAILED",
}
_PAGE = 100


class LoggedModelStore(AbstractStore):
    """Logged models."""

    _stored: StoredWorkspace

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: list[LoggedModelTag] | None = None,
        params: list[LoggedModelParameter] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """See MLflow."""
        _validate_logged_model_name(name)
        number = experiment_number(experiment_id)

        def work(tx: Transaction) -> LoggedModel:
            model_id = logged_models.create(
                tx,
                number,
                name=name or random_name(),
                type=model_type or "",
                run=source_run_id,
                params={param.key: param.value for param in params or []},
                tags={tag.key: tag.value for tag in tags or []},
            )
            return self._entity(logged_models.get(tx.connection, model_id))

        return self._stored.write(work)

    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:
        """See MLflow."""
        with self._stored.reading() as connection:
            return self._entity(logged_models.get(connection, model_id, deleted=allow_deleted))

    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """See MLflow."""
        word = _WORDS.get(status)
        if word is None:
            raise MlflowException.invalid_parameter_value(f"'{status}' is none of {list(STATUSES)}.")

        def work(tx: Transaction) -> LoggedModel:
            logged_models.finalize(tx, model_id, word)
            return self._entity(logged_models.get(tx.connection, model_id))

        return self._stored.write(work)

    def delete_logged_model(self, model_id: str) -> None:
        """See MLflow."""
        self._stored.write(lambda tx: logged_models.remove(tx, model_id))

    def log_logged_model_params(self, model_id: str, params: list[LoggedModelParameter]) -> None:
        """See MLflow."""
        values = {param.key: param.value for param in params}
        self._stored.write(lambda tx: logged_models.log_params(tx, model_id, values))

    def set_logged_model_tags(self, model_id: str, tags: list[LoggedModelTag]) -> None:
        """See MLflow."""
        values = {tag.key: tag.value for tag in tags}
        self._stored.write(lambda tx: logged_models.set_tags(tx, model_id, values))

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """See MLflow."""
        self._stored.write(lambda tx: logged_models.delete_tag(tx, model_id, key))

    def search_logged_models(
        self,
        experiment_ids: list[str],
        filter_string: str | None = None,
        datasets: list[dict[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: list[dict[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """See MLflow."""
        numbers = [experiment_number(each) for each in experiment_ids]
        with self._stored.reading() as connection:
            page = logged_models.search(
                connection,
                numbers,
                filter=filter_string or "",
                order_by=[
                    logged_models.order(each["field_name"], ascending=each.get("ascending", True))
                    for each in order_by or []
                ],
                datasets=[(each["dataset_name"], each.get("dataset_digest")) for each in datasets or []],
                limit=max_results or _PAGE,
                page_token=page_token or "",
            )
        return PagedList([self._entity(each) for each in page.models], page.next_page_token or None)

    def _entity(self, stored: logged_models.LoggedModel) -> LoggedModel:
        return logged_model_entity(self._stored.project, stored)
