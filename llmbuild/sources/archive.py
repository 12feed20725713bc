"""Extracting a checkpoint from an untrusted tar or zip archive.

Only the needed files are taken, and each is written under its own last name into the output directory, so that no name
in an archive decides where bytes go.  An archive with a name that leaves its folder is refused all the same: it was not
made by an honest tool.
"""

from __future__ import annotations

import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from llmbuild.canonical import Digest
from llmbuild.errors import FetchError
from llmbuild.jsontext import MOST_BYTES
from llmbuild.sources.copying import copy_stream, free_space
from llmbuild.sources.select import checkpoint_root, needed_files, output_name

MOST_MEMBERS = 100_000
_MOST_HEADER = 1 << 20
"""The most bytes of one extended header of a tar archive, which is read into memory."""

# What Python's readers raise for bytes that no tool wrote: errors of their own, and whatever a wrong number leads to.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)
_DRIVE = re.compile(r"[A-Za-z]:")
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class Archive:
    """An open archive.  Raises FetchError, here and in each method, when it is damaged, or contains unsafe names."""

    def __init__(self, path: Path, form: str, where: str) -> None:
        self._where = where
        with damage_reported(where):
            self._file: Any = tarfile.open(path, tarinfo=_Header) if form == "tar" else zipfile.ZipFile(path)  # noqa: SIM115
        try:
            with damage_reported(where):
                self._members = self._tar_members() if form == "tar" else self._zip_members()
        except FetchError:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def names(self) -> list[str]:
        """The names of its files; folders, links and devices are left out, so that nothing follows or makes one."""
        return list(self._members)

    def size(self, name: str) -> int:
        """The size that it declares for a file, in bytes."""
        member = self._members[name]
        return int(member.size if isinstance(member, tarfile.TarInfo) else member.file_size)

    def read(self, name: str, most: int) -> bytes:
        """A small file's content."""
        with damage_reported(self._where), self._open(name) as stream:
            data: bytes = stream.read(most + 1)
        if len(data) > most:
            raise self._too_large(name, most)
        return data

    def copy(self, name: str, dest: Path, add: Callable[[int], None], most: int | None = None) -> Digest:
        """Write a file's content to the new file `dest`; returns its SHA-256.

        No more than `most` bytes come, or, where it is None, than the disk has place for.  Raises StoreError as well.
        """
        most = free_space(dest.parent, reserve=True) if most is None else most
        with damage_reported(self._where), self._open(name) as stream:
            digest, size = copy_stream(stream, dest, add, most)
        if size > most:
            dest.unlink()
            raise self._too_large(name, most)
        return digest

    def _too_large(self, name: str, most: int) -> FetchError:
        return FetchError(
            f"'{name}' in the archive is too large",
            where=self._where,
            why=f"it has more than {most} bytes, which is what was locked, or what there is place for",
            fix="get the archive from a source that you trust, or free some space",
        )

    def _open(self, name: str) -> IO[bytes]:
        member = self._members[name]
        stream: IO[bytes] | None = (
            self._file.extractfile(member) if isinstance(member, tarfile.TarInfo) else self._file.open(member)
        )
        if stream is None:
            raise tarfile.ReadError(f"'{name}' is no file")
        return stream

    def _tar_members(self) -> dict[str, Any]:
        found = {}
        for count, member in enumerate(self._file):
            self._check(count, member.name)
            if member.isfile():
                found[member.name.removeprefix("./")] = member
        return found

    def _zip_members(self) -> dict[str, Any]:
        found = {}
        for count, info in enumerate(self._file.infolist()):
            self._check(count, info.filename)
            if not info.is_dir() and not _is_link(info):
                found[info.filename] = info
        return found

    def _check(self, count: int, name: str) -> None:
        if count >= MOST_MEMBERS:
            raise FetchError("the archive holds too many files", where=self._where, why=f"more than {MOST_MEMBERS}")
        if name.startswith(("/", "\\")) or "\0" in name or _DRIVE.match(name) or ".." in re.split(r"[/\\]", name):
            raise FetchError(
                f"the archive holds an unsafe name: {name!r:.200}",
                where=self._where,
                why="it leads out of the folder into which it would be unpacked",
                fix="get the archive from a source that you trust",
            )


class _Header(tarfile.TarInfo):
    """A header of a tar archive, refused where it would bring more into memory than any name is long."""

    def _proc_member(self, file: tarfile.TarFile) -> Any:
        if self.type in _EXTENDED and self.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(file)  # type: ignore[misc]


def unpack(
    archive: Path,
    form: str,
    source_format: str | None,
    out: Path,
    where: str,
    add: Callable[[int], None],
    sizes: Mapping[str, int] | None = None,
) -> None:
    """Write the needed files of the checkpoint in an archive into `out`; `sizes` are the known ones by their names there.

    Raises FetchError when the archive is damaged, or contains unsafe names or no checkpoint.
    """
    with Archive(archive, form, where) as file:
        names = file.names
        root = checkpoint_root(names, where)
        inside = [name.removeprefix(root) for name in names if name.startswith(root)]
        for name in needed_files(inside, source_format, where, lambda name: file.read(root + name, MOST_BYTES)):
            dest = output_name(name)
            file.copy(root + name, out / dest, add, (sizes or {}).get(dest))


@contextmanager
def damage_reported(where: str) -> Iterator[None]:
    """Turn the many errors of damaged archives into one FetchError.  Stands around the reading of archives only."""
    try:
        yield
    except _DAMAGE as error:
        raise FetchError("the archive is damaged", where=where, why=str(error) or type(error).__name__) from error
    except OSError as error:
        raise FetchError("the archive cannot be read", where=where, why=error.strerror or str(error)) from error


def _is_link(info: zipfile.ZipInfo) -> bool:
    """Whether a zip member was a symbolic link on the system that packed it."""
    return (info.external_attr >> 16) & 0o170000 == 0o120000
