"""The blob stores that come with Trimtab pass the suite."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from obstore.store import LocalStore

from trimtab.errors import InvalidInputError, ModelCorruptError
from trimtab.store import object_blobs
from trimtab.store.blobs import Blobs, open_blobs
from trimtab.store.object_blobs import ObjectBlobs
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
        return open_blobs("memory://", folder / "drafts")


class TestObjectBlobs(BlobsConformance):
    """As on S3, but on a disk: objects that are written, listed and deleted one by one."""

    def open_blobs(self, folder: Path) -> Blobs:
        (folder / "objects").mkdir()
        return ObjectBlobs(LocalStore(folder / "objects"), folder / "drafts")

    def test_a_sweeper_that_died_holds_nobody_up_for_long(
        self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(object_blobs, "SWEEP_SECONDS", 0.2)
        digest = blobs.put(b"content")
        name = digest.removeprefix("b3:")
        going = tmp_path / "store" / "objects" / "going" / name[:2] / name
        going.parent.mkdir(parents=True)
        going.touch()
        assert blobs.put(b"content") == digest
        assert blobs.get(digest) == b"content"


def test_an_address_that_no_store_answers_to_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="carrier-pigeon"):
        open_blobs("carrier-pigeon://coop")


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace on this machine")
def test_a_put_is_synced_before_it_returns(tmp_path: Path) -> None:
    script = (
        "import sys; from trimtab.store.blobs import open_blobs; blobs = open_blobs(sys.argv[1]);"
        "print(blobs.put(b'durable'))"
    )
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,write,openat"
    command = [sys.executable, "-c", script, str(tmp_path / "s")]
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", calls, "-o", str(trace), *command],
        capture_output=True,
        text=True,
        check=True,
    )
    name = done.stdout.strip().removeprefix("b3:")
    signs = {
        "file synced": r"fsync\(.*/draft-",
        "renamed": r"rename.*/draft-",
        "folder synced": rf"fsync\(.*/b3/{name[:2]}>",
        "told": rf"write\(1.*{name[:8]}",
    }
    seen = [step for line in trace.read_text().splitlines() for step in signs if re.search(signs[step], line)]
    assert seen == list(signs)


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_a_folder_can_be_named_in_two_ways(tmp_path: Path, address: str) -> None:
    folder = tmp_path / "a b"
    digest = open_blobs(address.format(quote(str(folder)) if "://" in address else folder)).put(b"x")
    assert open_blobs(str(folder)).get(digest) == b"x"
