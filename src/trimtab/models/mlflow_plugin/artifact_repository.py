"""MLflow's artifact repository over the blob store: files of runs and logged models, and the content of
model versions, which nobody can change."""

from __future__ import annotations

import posixpath
from pathlib import Path

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from trimtab.errors import ConflictError, NotFoundError
from trimtab.models.addresses import Place, place_of
from trimtab.models.contents import files_at, shelf_at
from trimtab.models.mlflow_plugin.errors import as_mlflow
from trimtab.models.mlflow_plugin.workspaces import workspace_of
from trimtab.store.blobs import TreeFile
from trimtab.store.database import Transaction
from trimtab.tracking import artifacts
from trimtab.workspace import Workspace


class TrimtabArtifactRepository(ArtifactRepository):
    """The artifacts at an address (see `addresses`)."""

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        super().__init__(artifact_uri, tracking_uri)
        self.registry_uri = registry_uri
        with as_mlflow():
            self._project, self._place = place_of(artifact_uri)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """See MLflow."""
        file = Path(local_file)
        self._keep({posixpath.join(artifact_path or "", file.name): file})

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """See MLflow. All files become visible at once; empty folders are not kept."""
        with as_mlflow():
            found = artifacts.files_below(Path(local_dir))
        self._keep({posixpath.join(artifact_path or "", name): file for name, file in found.items()})

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """See MLflow: what is directly below a folder, by path; nothing below a file."""
        folder = (path or "").strip("/")
        with as_mlflow():
            files = self._files(folder)
        start = f"{folder}/" if folder else ""
        found: dict[str, FileInfo] = {}
        for name, file in files.items():
            if not name.startswith(start):
                continue  # the file at `path` itself
            first, slash, _ = name.removeprefix(start).partition("/")
            found[first] = FileInfo(start + first, bool(slash), None if slash else file.size)
        return sorted(found.values(), key=lambda info: str(info.path))

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        name = remote_file_path.strip("/")
        with as_mlflow():
            file = self._files(name).get(name)
            if file is None:
                raise NotFoundError(f"There is no artifact '{name}' at {self.artifact_uri}.")
            self._workspace().blobs.fetch_file(file.digest, Path(local_path))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """See MLflow."""
        path = self._below(artifact_path or "")

        def work(tx: Transaction) -> None:
            shelf = shelf_at(tx.connection, self._writable(), writing=True)
            artifacts.delete_on(tx, shelf, path)

        with as_mlflow():
            self._workspace().write(work)

    def _keep(self, sources: dict[str, Path]) -> None:
        with as_mlflow():
            place = self._writable()
            names = {artifacts.confined(self._below(name)): file for name, file in sources.items()}
            workspace = self._workspace()
            with workspace.read() as connection:  # before anything large is copied
                shelf_at(connection, place, writing=True)
            files = {
                name: (workspace.blobs.put_file(file), file.stat().st_size) for name, file in names.items()
            }
            workspace.write(
                lambda tx: artifacts.record_on(tx, shelf_at(tx.connection, place, writing=True), files)
            )

    def _files(self, path: str) -> dict[str, TreeFile]:
        """The file at `path` or the files below it, by their paths from this repository's root."""
        found = files_at(self._workspace(), Place(self._place.kind, self._place.owner, self._below(path)))
        root = f"{self._place.path}/" if self._place.path else ""
        if self._place.path in found:  # this repository's root is one file
            return {posixpath.basename(self._place.path): found[self._place.path]}
        return {name.removeprefix(root): file for name, file in found.items()}

    def _below(self, path: str) -> str:
        return posixpath.join(self._place.path, path).strip("/")

    def _writable(self) -> Place:
        if self._place.kind == "trees":
            raise ConflictError(
                "The content of a model version never changes.", hint="Log a new model and register that."
            )
        return self._place

    def _workspace(self) -> Workspace:
        return workspace_of(self._project)
