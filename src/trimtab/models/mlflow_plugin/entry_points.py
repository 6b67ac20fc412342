"""What MLflow loads when it is imported: one function for each of its plug-in groups.

They load the rest when the first `trimtab:` address is used, so that `import mlflow` costs nobody more.
"""

# ruff: noqa: PLC0415  (this module exists to load the others late; mlflow is half imported when it is loaded)

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.models.mlflow_plugin.artifact_repository import TrimtabArtifactRepository
    from trimtab.models.mlflow_plugin.registry_store import RegistryStore
    from trimtab.models.mlflow_plugin.tracking_store import TrackingStore


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> TrackingStore:
    """The tracking store of a workspace. It assigns every artifact's place itself: `artifact_uri` is not
    used."""
    from trimtab.models.mlflow_plugin.tracking_store import TrackingStore

    return TrackingStore(store_uri)


def registry_store(store_uri: str, tracking_uri: str | None = None) -> RegistryStore:
    """The model registry of a workspace."""
    from trimtab.models.mlflow_plugin.registry_store import RegistryStore

    return RegistryStore(store_uri, tracking_uri)


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> TrimtabArtifactRepository:
    """The artifacts of a run or a logged model, or the content of a model version."""
    from trimtab.models.mlflow_plugin.artifact_repository import TrimtabArtifactRepository

    return TrimtabArtifactRepository(artifact_uri, tracking_uri)
