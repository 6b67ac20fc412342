"""The suite that every blob store must pass.

class TestMyBlobs(BlobsConformance):
    def open_blobs(self, folder: Path) -> Blobs:
        return MyBlobs(folder)
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.store.blobs import Blobs, Manifest, TreeFile

SEVERAL_PARTS = 11 * 2**20
"""Bytes of a blob that object stores take in more than one part."""


MEMORY = "/dev/shm"  # noqa: S108  (what is made there has a name that nobody can guess)


class BlobsConformance(ABC):
    """Subclass it in a test module and say how to open a store; pytest then runs all of it."""

    @abstractmethod
    def open_blobs(self, folder: Path) -> Blobs:
        """An empty store, which may keep its files in this empty folder."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        folder = tmp_path / "store"
        folder.mkdir()
        return self.open_blobs(folder)

    @pytest.mark.parametrize("data", [b"", b"\0", b"some bytes", b"\xff" * 100_000], ids=len)
    def test_bytes_come_back_under_the_digest_of_what_they_are(self, blobs: Blobs, data: bytes) -> None:
        digest = blobs.put(data)
        assert digest == digest_bytes(data)
        assert blobs.get(digest) == data
        assert blobs.exists(digest)

    def test_the_same_bytes_are_kept_once_however_they_come(self, blobs: Blobs, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"twice")
        assert blobs.put(b"twice") == blobs.put(b"twice") == blobs.put_file(tmp_path / "file")
        assert list(blobs.digests()) == [digest_bytes(b"twice")]

    def test_a_blob_of_several_parts_comes_back_whole(self, blobs: Blobs, tmp_path: Path) -> None:
        data = bytes(range(256)) * (SEVERAL_PARTS // 256)
        (tmp_path / "large").write_bytes(data)
        digest = blobs.put_file(tmp_path / "large")
        blobs.fetch_file(digest, tmp_path / "deep" / "copy")
        assert (tmp_path / "deep" / "copy").read_bytes() == data == blobs.get(digest)

    def test_what_is_not_kept_is_not_found(self, blobs: Blobs, tmp_path: Path) -> None:
        unknown = digest_bytes(b"never put")
        assert not blobs.exists(unknown)
        for read in (
            lambda: blobs.get(unknown),
            lambda: blobs.manifest(unknown),
            lambda: blobs.fetch_file(unknown, tmp_path / "file"),
            lambda: blobs.fetch_tree(unknown, tmp_path / "tree"),
        ):
            with pytest.raises(NotFoundError, match=unknown):
                read()
        assert [path.name for path in tmp_path.iterdir()] == ["store"]

    @pytest.mark.parametrize("name", ["", "b3:", "latest", "b3:" + "A" * 64, "../../etc/passwd"])
    def test_what_is_no_digest_is_refused(self, blobs: Blobs, name: str) -> None:
        with pytest.raises(InvalidInputError, match="not a digest"):
            blobs.get(name)
        with pytest.raises(InvalidInputError, match="not a digest"):
            blobs.exists(name)
        with pytest.raises(InvalidInputError, match="not a digest"):
            blobs.delete(name)

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, blobs: Blobs) -> None:
        kept, deleted = blobs.put(b"kept"), blobs.put(b"deleted")
        blobs.delete(deleted)
        blobs.delete(deleted)
        assert not blobs.exists(deleted)
        assert list(blobs.digests()) == [kept]
        assert blobs.put(b"deleted") == deleted
        assert blobs.get(deleted) == b"deleted"

    def test_bytes_that_come_piece_by_piece_are_kept_as_one(self, blobs: Blobs) -> None:
        with blobs.draft() as draft:
            for piece in (b"one ", b"", b"two"):
                draft.write(piece)
            assert draft.size == 7
            digest = draft.keep()
        assert digest == digest_bytes(b"one two")
        assert blobs.get(digest) == b"one two"

    def test_a_draft_that_is_given_up_is_no_blob(self, blobs: Blobs) -> None:
        with blobs.draft() as draft:
            draft.write(b"half")
        assert list(blobs.digests()) == []
        assert not draft.path.exists()

    def test_a_blob_can_be_read_as_a_stream_and_in_parts(self, blobs: Blobs) -> None:
        data = bytes(range(256)) * (SEVERAL_PARTS // 256)
        digest = blobs.put(data)
        with blobs.open(digest) as reader:
            assert reader.size == len(data)
            chunks = list(reader)
        assert b"".join(chunks) == data
        assert max(map(len, chunks)) <= 2**22
        for first, length in ((0, 10), (5, 2**20), (len(data) - 3, 3), (len(data) - 3, 100), (7, None)):
            with blobs.open(digest, first, length) as reader:
                last = len(data) if length is None else first + length
                assert b"".join(reader) == data[first:last]
                assert reader.size == len(data)

    def test_an_empty_blob_is_an_empty_stream(self, blobs: Blobs) -> None:
        with blobs.open(blobs.put(b"")) as reader:
            assert list(reader) == []

    def test_only_what_was_written_before_is_swept(self, blobs: Blobs) -> None:
        digest = blobs.put(b"old")
        (listed,) = blobs.listed()
        assert (listed.digest, listed.size) == (digest, 3)
        assert not blobs.sweep(digest, listed.written_at)
        assert blobs.exists(digest)
        assert blobs.sweep(digest, listed.written_at + timedelta(seconds=1))
        assert not blobs.exists(digest)
        assert not blobs.sweep(digest, listed.written_at + timedelta(seconds=1))

    def test_what_is_put_again_counts_as_written_then(self, blobs: Blobs, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"again")
        digest = blobs.put(b"again")
        seen = [next(iter(blobs.listed())).written_at]
        for again in (
            lambda: blobs.put(b"again"),
            lambda: blobs.put_file(tmp_path / "file"),
            lambda: blobs.refresh(digest),
            lambda: blobs.put_manifest({"a": TreeFile(digest, 5)}),
        ):
            time.sleep(0.02)
            again()
            seen += [blob.written_at for blob in blobs.listed() if blob.digest == digest]
            assert not blobs.sweep(digest, seen[-2] + timedelta(milliseconds=1))
        assert seen == sorted(set(seen))

    def test_what_is_not_kept_cannot_be_refreshed_or_put_into_a_tree(self, blobs: Blobs) -> None:
        unknown = digest_bytes(b"never put")
        assert not blobs.refresh(unknown)
        with pytest.raises(NotFoundError, match=unknown):
            blobs.put_manifest({"a": TreeFile(unknown, 1)})

    def test_what_is_put_while_a_sweeper_works_is_kept(self, blobs: Blobs) -> None:
        for _ in range(20):
            digest = blobs.put(b"contended")
            time.sleep(0.005)
            sweeper = threading.Thread(target=blobs.sweep, args=(digest, datetime.now(UTC)))
            time.sleep(0.02)  # a file system's clock is some milliseconds behind
            sweeper.start()
            assert blobs.put(b"contended") == digest
            sweeper.join()
            assert blobs.get(digest) == b"contended"

    def test_abandoned_drafts_are_swept(self, blobs: Blobs) -> None:
        with blobs.draft() as draft:
            draft.write(b"half")
            assert blobs.sweep_drafts(datetime.now(UTC) - timedelta(days=1)) == 0
            assert draft.path.exists()

    def test_a_tree_of_blobs_is_that_of_their_folder(self, blobs: Blobs, tmp_path: Path) -> None:
        digest = blobs.put_tree(_folder(tmp_path / "tree", {"b/c": b"2", "a": b"1"}))
        listed = {name: TreeFile(digest_bytes(data), 1) for name, data in (("b/c", b"2"), ("a", b"1"))}
        assert blobs.put_manifest(listed) == digest

    def test_a_tree_comes_back_file_by_file(self, blobs: Blobs, tmp_path: Path) -> None:
        files = {"MLmodel": b"flavors:", "data/model.txt": b"tree", "data/empty": b"", "größe/ß.bin": b"\0\1"}
        digest = blobs.put_tree(_folder(tmp_path / "tree", files))
        blobs.fetch_tree(digest, tmp_path / "copy")
        assert _files(tmp_path / "copy") == files
        assert blobs.manifest(digest).files.keys() == files.keys()
        assert blobs.manifest(digest).files["data/model.txt"] == TreeFile(digest_bytes(b"tree"), 4)

    def test_a_trees_digest_depends_on_its_content_alone(self, blobs: Blobs, tmp_path: Path) -> None:
        files = {"a": b"1", "b/c": b"2"}
        one = blobs.put_tree(_folder(tmp_path / "one", files))
        other = blobs.put_tree(_folder(tmp_path / "other", dict(reversed(files.items()))))
        changed = blobs.put_tree(_folder(tmp_path / "changed", {**files, "a": b"3"}))
        renamed = blobs.put_tree(_folder(tmp_path / "renamed", {"a2": b"1", "b/c": b"2"}))
        assert one == other
        assert len({one, changed, renamed}) == 3

    def test_a_tree_that_cannot_be_had_whole_leaves_no_folder(self, blobs: Blobs, tmp_path: Path) -> None:
        digest = blobs.put_tree(_folder(tmp_path / "tree", {"a": b"1", "b": b"2"}))
        blobs.delete(digest_bytes(b"2"))
        target = tmp_path / "out" / "copy"
        with pytest.raises(NotFoundError):
            blobs.fetch_tree(digest, target)
        assert list(target.parent.iterdir()) == []

    def test_a_tree_that_stands_is_left_alone(self, blobs: Blobs, tmp_path: Path) -> None:
        digest = blobs.put_tree(_folder(tmp_path / "tree", {"a": b"1"}))
        standing = _folder(tmp_path / "copy", {"mine": b"!"})
        blobs.fetch_tree(digest, standing)
        assert _files(standing) == {"mine": b"!"}

    @pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside", "..\\outside", ""])
    def test_a_tree_cannot_write_outside_its_folder(self, blobs: Blobs, tmp_path: Path, name: str) -> None:
        evil = Manifest({name: TreeFile(blobs.put(b"evil"), 4)})
        digest = blobs.put(msgspec.json.encode(evil, order="deterministic"))
        with pytest.raises(InvalidInputError, match="leads out of its tree"):
            blobs.fetch_tree(digest, tmp_path / "out" / "copy")
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_symbolic_link_in_a_tree_is_refused(self, blobs: Blobs, tmp_path: Path) -> None:
        folder = _folder(tmp_path / "tree", {"a": b"1"})
        (folder / "link").symlink_to(folder / "a")
        with pytest.raises(InvalidInputError, match="link"):
            blobs.put_tree(folder)

    def test_a_blob_that_is_no_tree_is_said_to_be_none(self, blobs: Blobs) -> None:
        with pytest.raises(InvalidInputError, match="not a tree"):
            blobs.manifest(blobs.put(b"plain"))

    def test_many_may_put_and_get_the_same_at_once(self, blobs: Blobs, tmp_path: Path) -> None:
        folder = _folder(tmp_path / "tree", {str(number): bytes([number]) * 1000 for number in range(5)})
        with ThreadPoolExecutor(8) as pool:
            digests = set(pool.map(lambda _: blobs.put_tree(folder), range(16)))
        assert len(digests) == 1
        (digest,) = digests
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: blobs.fetch_tree(digest, tmp_path / "copy"), range(16)))
        assert _files(tmp_path / "copy") == _files(folder)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "store", "tree"]

    def test_any_sequence_of_calls_behaves_like_a_dict(self) -> None:
        # In memory where there is such a folder: the calls are what is looked at, not the disk's syncs.
        with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
            numbers = itertools.count()

            class Machine(_BlobsMachine):
                def opened(machine) -> Blobs:  # noqa: N805  (`self` is the suite, which knows how to open)
                    path = Path(folder) / str(next(numbers))
                    path.mkdir()
                    return self.open_blobs(path)

            run_state_machine_as_test(
                Machine, settings=settings(deadline=None, max_examples=30, stateful_step_count=20)
            )


class _BlobsMachine(RuleBasedStateMachine):
    """Calls in any order, compared with a plain dict."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.blobs = self.opened()
        self.model: dict[str, bytes] = {}

    def opened(self) -> Blobs:
        raise NotImplementedError

    @rule(target=known, data=st.binary(max_size=40))
    def put(self, data: bytes) -> str:
        digest = self.blobs.put(data)
        self.model[digest] = data
        return digest

    @rule(digest=known)
    def get(self, digest: str) -> None:
        if digest in self.model:
            assert self.blobs.get(digest) == self.model[digest]
        else:
            with pytest.raises(NotFoundError):
                self.blobs.get(digest)

    @rule(digest=consumes(known))
    def delete(self, digest: str) -> None:
        self.blobs.delete(digest)
        self.model.pop(digest, None)

    @invariant()
    def the_same_are_listed(self) -> None:
        assert sorted(self.blobs.digests()) == sorted(self.model)


def _folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return dict(_walk(folder))


def _walk(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()
