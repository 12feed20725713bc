"""Taking a checkpoint out of a tar or zip archive.

Only the needed files are taken, and each is written under its own last name into the output directory, so that no name
in an archive decides where bytes go.  An archive with a name that leaves its folder is refused all the same: it was not
made by an honest tool.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmbuild.errors import FetchError
from llmbuild.sources.copying import copy_stream
from llmbuild.sources.select import checkpoint_root, needed_files, output_name

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ZIP_SUFFIXES = (".zip", ".whl")

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_DRIVE = re.compile(r"[A-Za-z]:")


def archive_form(name: str) -> str | None:
    """ "tar", "zip", or None, by a file's name."""
    lower = name.lower()
    return "tar" if lower.endswith(TAR_SUFFIXES) else "zip" if lower.endswith(ZIP_SUFFIXES) else None


def unpack(
    archive: Path, form: str, source_format: str | None, out: Path, where: str, add: Callable[[int], None]
) -> None:
    """Write the needed files of the checkpoint in an archive into `out`.

    Raises FetchError when the archive is damaged, holds unsafe names or no checkpoint.
    """
    with damage_reported(where):
        if form == "tar":
            _unpack_tar(archive, source_format, out, where, add)
        else:
            with zipfile.ZipFile(archive) as file:
                names = zip_names(file, where)
                for name in chosen(names, source_format, where):
                    with file.open(name) as stream:
                        copy_stream(stream, out / output_name(name), add)


def _unpack_tar(archive: Path, source_format: str | None, out: Path, where: str, add: Callable[[int], None]) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            check_name(member.name, where)
        # Links and devices are never followed or made; a needed file that is one counts as missing.
        regular = {member.name.removeprefix("./"): member for member in members if member.isfile()}
        for name in chosen(list(regular), source_format, where):
            stream = file.extractfile(regular[name])
            if stream is not None:
                with stream:
                    copy_stream(stream, out / output_name(name), add)


def zip_names(file: zipfile.ZipFile, where: str) -> list[str]:
    """The names of a zip archive's files (folders left out).  Raises FetchError for an unsafe name."""
    for name in file.namelist():
        check_name(name, where)
    return [info.filename for info in file.infolist() if not info.is_dir() and not _is_link(info)]


def chosen(names: list[str], source_format: str | None, where: str) -> Iterator[str]:
    """The full names of the needed files among an archive's, in order."""
    root = checkpoint_root(names, where)
    inside = [name.removeprefix(root) for name in names if name.startswith(root)]
    return (root + name for name in needed_files(inside, source_format, where))


def check_name(name: str, where: str) -> None:
    """Raise FetchError when a name in an archive is absolute or leaves its folder."""
    if name.startswith(("/", "\\")) or "\0" in name or _DRIVE.match(name) or ".." in re.split(r"[/\\]", name):
        raise FetchError(
            f"the archive holds an unsafe name: {name!r:.200}",
            where=where,
            why="it leads out of the folder into which it would be unpacked",
            fix="get the archive from a source that you trust",
        )


@contextmanager
def damage_reported(where: str) -> Iterator[None]:
    """Turn the many errors of damaged archives into one FetchError."""
    try:
        yield
    except _DAMAGE as error:
        raise FetchError("the archive is damaged", where=where, why=str(error) or type(error).__name__) from error
    except OSError as error:
        raise FetchError("the archive cannot be read", where=where, why=error.strerror or str(error)) from error


def _is_link(info: zipfile.ZipInfo) -> bool:
    """Whether a zip member was a symbolic link on the system that packed it."""
    return (info.external_attr >> 16) & 0o170000 == 0o120000
