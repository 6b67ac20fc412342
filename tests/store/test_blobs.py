"""The blob stores that come with Trimtab pass the suite."""

from pathlib import Path

import pytest

from trimtab.errors import InvalidInputError, ModelCorruptError
from trimtab.store.blobs import Blobs, open_blobs
from trimtab.testing.blobs import BlobsConformance


class TestFolderBlobs(BlobsConformance):
    def open_blobs(self, folder: Path) -> Blobs:
        return open_blobs(str(folder))

    def test_a_blob_whose_bytes_rotted_is_not_handed_out(self, blobs: Blobs, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "file").write_bytes(b"sound")
        tree, digest = blobs.put_tree(tmp_path / "tree"), blobs.put(b"sound")
        (kept,) = [path for path in (tmp_path / "store").rglob("*") if path.name == digest[3:]]
        kept.write_bytes(b"rotten")
        with pytest.raises(ModelCorruptError, match=digest):
            blobs.get(digest)
        with pytest.raises(ModelCorruptError, match=digest):
            blobs.fetch_file(digest, tmp_path / "out" / "file")
        with pytest.raises(ModelCorruptError, match=digest):
            blobs.fetch_tree(tree, tmp_path / "out" / "tree")
        assert list((tmp_path / "out").iterdir()) == []


class TestMemoryBlobs(BlobsConformance):
    def open_blobs(self, folder: Path) -> Blobs:
        return open_blobs("memory://")


def test_an_address_that_no_store_answers_to_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="carrier-pigeon"):
        open_blobs("carrier-pigeon://coop")
