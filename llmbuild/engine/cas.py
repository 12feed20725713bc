"""The content-addressed store: bytes named by their SHA-256, verified whenever they are read.

A blob's file is `blobs/ab/cdef…`, mode 0444.  Blobs appear by rename, complete or not at all; they are not fsynced,
because what a power loss does to them is found when they are read.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, digest_bytes, digest_file
from llmbuild.engine import files, fs, records
from llmbuild.engine.locks import guard
from llmbuild.engine.places import Places
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.engine.verified import VerifiedMemo, stamp_of
from llmbuild.errors import InputError, StoreError

if TYPE_CHECKING:
    from llmbuild.checkpoints.pieces import Pieces
    from llmbuild.engine.passing import Passed
    from llmbuild.engine.verified import Stamp

CLAIMS = "claims"
"""A file in a process's scratch: the blobs that it wanted to write and found, one digest a line."""

EMPTY_TREE = Tree(())
_EMPTY_DIGEST = EMPTY_TREE.digest


class MissingBlobError(StoreError):
    """A required blob is not in the store, or was corrupt and has been dropped."""

    def __init__(self, digest: Digest, why: str = "it was removed or found corrupt", fix: str | None = None) -> None:
        super().__init__(f"blob {digest[:12]} is not in the cache", why=why, fix=fix)
        self.digest = digest


class Cas:
    """The blobs of one store.  `scratch` gives a directory of this process on the same file system."""

    def __init__(self, root: Path, scratch: Callable[[], Path]) -> None:
        self.root = root
        self._prefix = f"{root}/"
        self._scratch = scratch
        self.memo = VerifiedMemo(root.parent / "verified")
        self.places = Places(root.parent / "in-place", scratch)
        self.guard_path = root.parent / "gc.lock"
        self.corrupt: set[Digest] = set()
        """The blobs that were found corrupt, and dropped, since the store was opened."""
        self._listeners: list[Callable[[Digest, Path], None]] = []

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob is or would be, present or not."""
        return Path(f"{self._prefix}{digest[:2]}/{digest[2:]}")

    def _name(self, digest: Digest) -> str:
        """As `blob_path`, for calls that are made for each file of a build."""
        return f"{self._prefix}{digest[:2]}/{digest[2:]}"

    # Reading.

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is present and right; a corrupt one is dropped."""
        try:
            self._verify(digest, size)
        except MissingBlobError:
            return False
        return True

    def path(self, digest: Digest) -> Path:
        """The verified blob's file, which nobody may change.  Raises MissingBlobError."""
        self._verify(digest, None)
        return self.blob_path(digest)

    def get_bytes(self, digest: Digest) -> bytes:
        """The verified content.  Raises MissingBlobError."""
        path = f"{self._prefix}{digest[:2]}/{digest[2:]}"
        data: bytes | None
        try:
            data = files.read_bytes(path)
        except FileNotFoundError:
            raise MissingBlobError(digest) from None
        except IsADirectoryError:
            data = None
        except OSError as error:
            raise fs.store_error(error, "read a blob", path) from error
        if data is None or digest_bytes(data) != digest:
            self._drop(digest)
            raise MissingBlobError(digest)
        return data

    def get_tree(self, digest: Digest) -> Tree:
        """The tree of a tree blob.  Raises MissingBlobError, or StoreError when the blob is no tree."""
        if digest == _EMPTY_DIGEST:
            return EMPTY_TREE
        data = self.get_bytes(digest)
        try:
            tree = Tree.from_bytes(data)
        except ValueError as error:
            raise StoreError(f"blob {digest[:12]} is not a tree", why=str(error)) from error
        return tree

    def missing(self, tree: Tree) -> list[FileEntry]:
        """The files of a tree whose blob is missing or corrupt."""
        return [entry for entry in tree.files if not self.has(entry.digest, entry.size)]

    # Writing.

    def put_bytes(self, data: bytes) -> Digest:
        """Store bytes; returns their digest.  Raises StoreError."""
        digest = digest_bytes(data)
        if not self._claim(digest, len(data)):
            files.write_atomic(self._name(digest), data, mode=0o444, scratch=self._scratch())
            self._remember(digest)
        return digest

    def put_file(self, path: fs.StrPath, *, move: bool = False) -> tuple[Digest, int]:
        """Store a file's content; returns digest and size in bytes.  Raises StoreError.

        With `move` the file is our own scratch: it is renamed into the store (and is gone afterwards).  Otherwise it is
        hashed while it is copied, so that what is stored is what was hashed even if somebody changes the file meanwhile.
        """
        with fs.translate_errors("store a file", path):
            if move:
                temporary = os.fspath(path)
                fs.current.chmod(temporary, 0o444)
                digest, size = files.digest_and_size(temporary)
            else:
                temporary = f"{self._scratch()}/{files.temporary_name()}"
                try:
                    digest, size = files.copy_hashed(Path(path), temporary)
                    fs.current.chmod(temporary, 0o444)
                except OSError:
                    files.discard(temporary)
                    raise
            if self._claim(digest, size):
                fs.current.unlink(temporary)
            else:
                files.publish(temporary, self._name(digest))
                self._remember(digest)
        return digest, size

    def put_tree(
        self,
        directory: Path,
        *,
        move: bool = False,
        kept: Mapping[str, tuple[Pieces, Stamp]] | None = None,
        passed: Mapping[str, Passed] | None = None,
    ) -> Tree:
        """Store all files of a directory and the tree blob itself; returns the tree.  The `kept` files (by path in the tree)
        stay where their owner has them; the `passed` ones are in the store, each under the digest of its entry.

        Empty directories are not kept.  A symbolic link counts as the file it points to, which must be inside the
        directory: anything else would make the output depend on what happens to be on this machine.  Raises
        InputError for such a link, for special files and for two files of one path, MissingBlobError where a `passed` file
        is not what its entry says, StoreError when the store cannot be written.
        """
        modes: list[tuple[str, int]] = []
        links: list[tuple[str, Path]] = []
        with fs.translate_errors("store a directory", directory):
            for relative, mode in _walk(str(directory), ""):
                try:
                    records.file_path(relative)
                except ValueError as error:
                    raise InputError(
                        "no result can have a file of this name", where=relative, why=str(error)
                    ) from error
                if stat.S_ISLNK(mode):
                    root = directory.resolve()
                    links.append((relative, self._target_inside(root / relative, root)))
                elif stat.S_ISREG(mode):
                    modes.append((relative, mode))
                else:
                    raise InputError("only regular files can be stored", where=relative)
        by_path: dict[str, FileEntry] = {}
        for relative, mode in modes:
            digest, size = self.put_file(f"{directory}/{relative}", move=move)
            by_path[relative] = FileEntry(relative, digest, size, bool(mode & 0o100))
        for relative, target in links:
            name = target.relative_to(directory.resolve()).as_posix()
            if name not in by_path:
                raise InputError("a symbolic link must point to a regular file", where=relative)
            pointed = by_path[name]
            by_path[relative] = FileEntry(relative, pointed.digest, pointed.size, pointed.executable)
        for name, (pieces, stamp) in (kept or {}).items():
            if not self._claim(pieces.digest, pieces.size):
                self.places.put(pieces, stamp)
            by_path[name] = FileEntry(name, pieces.digest, pieces.size, False)
        for name, one in (passed or {}).items():
            if name in by_path:
                raise InputError("two files of a result have the same name", where=name)
            by_path[name] = self._pass_on(name, one)
        tree = Tree.of(by_path.values())
        self.put_bytes(tree.to_bytes())
        return tree

    def _pass_on(self, name: str, passed: Passed) -> FileEntry:
        """The entry of a file whose blob is in the store, where it is verified."""
        entry = passed.entry
        # A file that its owner has in place is no blob: the task was given a copy.
        if not self._claim(entry.digest, entry.size) and (
            passed.path.is_symlink() or self.put_file(passed.path) != (entry.digest, entry.size)
        ):
            raise MissingBlobError(entry.digest)
        return FileEntry(name, entry.digest, entry.size, entry.executable)

    # Linking out.

    def link_out(self, digest: Digest, dest: Path, executable: bool = False) -> files.Shared:
        """Put the blob's content at `dest` in one step, replacing what is there.

        Raises MissingBlobError, or StoreError when `dest` cannot be written.
        """
        with fs.translate_errors("write a file", dest, fs.OUTPUT):
            fs.current.mkdir(dest.parent)
            temporary = dest.parent / files.temporary_name()
            how = self.share_out(digest, temporary, executable)
            files.put_in_place(temporary, dest)
        if how == "link":
            # A further link changes the blob's ctime, not its content.
            self._remember(digest)
        return how

    def share_out(self, digest: Digest, dest: Path, executable: bool = False) -> files.Shared:
        """Make the new file `dest` with the blob's content; where that fails there is none.  Once it has its last name,
        `remember_link` spares the blob from being hashed again.

        Raises MissingBlobError, or OSError when `dest` cannot be written.
        """
        try:
            try:
                source = self.path(digest)
            except MissingBlobError:
                return self._copy_in_place(digest, dest, executable)
            return files.share(source, dest, executable=executable)
        except OSError:
            files.discard(dest)
            raise

    def _copy_in_place(self, digest: Digest, dest: Path, executable: bool) -> files.Shared:
        """Copy bytes that lie elsewhere, when they still match.  Raises MissingBlobError, else OSError."""
        place = self.places.find(digest)
        if place is None:
            if (path := self.places.path(digest)) is None:
                raise MissingBlobError(digest)
            why = f"it was read from {path}, which is not as it was"
            raise MissingBlobError(digest, why, "run `llmbuild build`, which looks at it again")
        if files.copy_hashed(place.path, dest)[0] != digest:
            files.discard(dest)
            self.places.drop(digest)
            raise MissingBlobError(digest)
        fs.current.chmod(dest, 0o555 if executable else 0o444)
        return "copy"

    def remember_link(self, digest: Digest, status: os.stat_result) -> None:
        """Record the blob as verified when it is the file of this stat, whose content was right and whose links were
        changed."""
        with contextlib.suppress(OSError):
            blob = os.stat(self._name(digest))  # noqa: PTH116 - once a file of a build.
            if (blob.st_ino, blob.st_dev) == (status.st_ino, status.st_dev):
                self.memo.record(digest, stamp_of(blob))

    def materialize(self, tree: Tree, directory: Path, checks: dict[Path, Pieces] | None = None) -> None:
        """Make a directory of symbolic links to the verified blobs of a tree.  Raises MissingBlobError or StoreError.

        Executable files are copied, because a link cannot have a mode of its own.  Bytes that are not in the store but where
        their owner has them are linked too, and recorded in `checks`, when the reader verifies what it reads against that; else
        they are copied.
        """
        with fs.translate_errors("lay out the inputs of a task", directory):
            fs.current.mkdir(directory)
            parents = {directory}
            for entry in tree.files:
                dest = directory / entry.path
                if dest.parent not in parents:
                    fs.current.mkdir(dest.parent)
                    parents.add(dest.parent)
                try:
                    source = self.path(entry.digest)
                except MissingBlobError:
                    place = None if checks is None or entry.executable else self.places.find(entry.digest)
                    if checks is None or place is None:
                        self._copy_in_place(entry.digest, dest, entry.executable)
                    else:
                        checks[dest] = place
                        fs.current.symlink(place.path, dest)
                    continue
                if entry.executable:
                    files.share(source, dest, executable=True)
                else:
                    fs.current.symlink(source.absolute(), dest)

    def remove(self, digest: Digest) -> None:
        """Evict a blob from the store; what depends on it is built again when needed."""
        path = self._name(digest)
        with fs.translate_errors("remove a blob", path):
            files.remove_tree(path, self.root)

    # Verification.

    def _claim(self, digest: Digest, size: int) -> bool:
        """Whether the blob is here already.  If so, it stays here while this process lives.

        Until a trace refers to it, a concurrent collection cannot detect otherwise that it is needed.
        """
        if not os.path.lexists(self._name(digest)) or not self.has(digest, size):
            return False
        with guard(self.guard_path, exclusive=False):
            if not self.has(digest, size):
                return False
            try:
                fs.current.append(self._scratch() / CLAIMS, f"{digest}\n".encode())
            except OSError:
                # Without the claim the blob is written once more, which reports clearly what is wrong with the disk.
                return False
        return True

    def _verify(self, digest: Digest, size: int | None) -> None:
        path = f"{self._prefix}{digest[:2]}/{digest[2:]}"
        try:
            status = os.stat(path)  # noqa: PTH116 - this runs once per file of a null build.
        except (FileNotFoundError, NotADirectoryError):
            raise MissingBlobError(digest) from None
        stamp = stamp_of(status)
        if self.memo.holds(digest, stamp) and (size is None or size == status.st_size):
            return
        with fs.translate_errors("read a blob", path):
            right = stat.S_ISREG(status.st_mode) and digest_file(Path(path)) == digest
        if not right:
            self._drop(digest)
            raise MissingBlobError(digest)
        self.memo.record(digest, stamp)
        if size is not None and size != status.st_size:
            # The blob is right, and a request for it with another size is not.
            raise MissingBlobError(digest)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[Digest, Path], None]) -> Iterator[None]:
        """Notify a listener of each corrupt blob, at once, in the thread that detects it."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def report_corrupt(self, digest: Digest, path: Path) -> None:
        """Report a blob that is dropped because it is corrupt, by this process or by one that works for it."""
        self.corrupt.add(digest)
        for listener in tuple(self._listeners):
            listener(digest, path)

    def _drop(self, digest: Digest) -> None:
        path = self.blob_path(digest)
        self.report_corrupt(digest, path)
        with contextlib.suppress(OSError):
            files.remove_tree(path, self.root)

    def _remember(self, digest: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.memo.record(digest, stamp_of(os.stat(self._name(digest))))  # noqa: PTH116 - once a file of a build.

    @staticmethod
    def _target_inside(link: Path, root: Path) -> Path:
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise InputError("a symbolic link leads nowhere", where=str(link.relative_to(root))) from error
        if not target.is_relative_to(root):
            raise InputError(
                "a symbolic link points outside the output directory",
                where=str(link.relative_to(root)),
                why=f"it points to {target}",
                fix="write the file itself",
            )
        return target


def _walk(directory: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Everything below a directory that is not one itself, by name: (relative path, mode).  Raises OSError."""
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_mode
