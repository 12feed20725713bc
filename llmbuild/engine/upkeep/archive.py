"""A part of a store as one file: the traces of some actions, their records, and every blob they refer to.

The file is a tar archive (POSIX.1-2001) whose bytes depend on nothing but what is in it: names sorted, no times, no
owners.  Its members, in this order:

    llmbuild-cache      JSON: the format's number, and how many blobs, actions and traces follow
    blobs/<digest>      content
    actions/<digest>    action records
    traces/<digest>     traces
    checksum            the SHA-256 of the name, size and SHA-256 of all members before it

Importing trusts nothing in it but the traces' claim that these outputs belong to these actions: names are read as
digests and never used as paths, blobs are hashed while they are read, and records and traces count only when the whole
archive was read and its checksum is right.  Until then only blobs were added, which are right whoever made them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from llmbuild.canonical import CHUNK, Digest, canonical_json, known_digest
from llmbuild.checkpoints.pieces import ChangedError, Pieces, PiecesReader
from llmbuild.engine import files, fs, records
from llmbuild.engine.intake import take_blob
from llmbuild.engine.kind import Progress, no_progress
from llmbuild.engine.locks import guard
from llmbuild.engine.lookup import Cached, lookup
from llmbuild.engine.store import Store, parse_action
from llmbuild.engine.trace import Trace
from llmbuild.engine.upkeep.survey import facts_of
from llmbuild.errors import InputError, StoreError

ARCHIVE_FORMAT = 1
HEADER, CHECKSUM = "llmbuild-cache", "checksum"


@dataclass(frozen=True, slots=True)
class Packed:
    """What an export wrote, or an import found; `size` in bytes of blobs.

    `missing` are actions whose result is not whole here and which were left out.  Of an import, `new_*` count
    what the store did not have.
    """

    blobs: int
    actions: int
    traces: int
    size: int
    missing: tuple[Digest, ...] = ()
    new_blobs: int = 0
    new_traces: int = 0


def export(store: Store, actions: Iterable[Digest], dest: Path, *, progress: Progress = no_progress) -> Packed:
    """Write the closure of the actions' results to `dest`, in one step.  Files that lie where their owner has them go along.

    Raises StoreError when the store cannot be read or `dest` not be written, ChangedError when such a file changes.
    """
    with guard(store.cas.guard_path, exclusive=False):
        traces: dict[Digest, Trace] = {}
        blobs: set[Digest] = set()
        missing: list[Digest] = []
        in_place: dict[Digest, Pieces] = {}
        for action in sorted(set(actions)):
            found = lookup(store, action)
            if not isinstance(found, Cached):
                missing.append(action)
                continue
            places = {file.digest: store.cas.places.find(file.digest) for file in found.away}
            if not all(places.values()):
                missing.append(action)
                continue
            in_place.update((digest, place) for digest, place in places.items() if place is not None)
            traces[action] = found.trace
            # The small blobs that explain an action may have been collected; its result does not need them.
            blobs.update(ref for ref in facts_of(store, found.trace, 0.0).refs if store.cas.has(ref))
        records = {action: _record(store, action) for action in traces}
        actions_in = {action: data for action, data in records.items() if data is not None}
        sizes = {digest: store.cas.path(digest).stat().st_size for digest in blobs}
        sizes.update((digest, place.size) for digest, place in in_place.items())
        total = sum(sizes.values())
        head: dict[str, int] = {
            "format": ARCHIVE_FORMAT,
            "blobs": len(sizes),
            "actions": len(actions_in),
            "traces": len(traces),
        }
        temporary = dest.parent / files.temporary_name()
        with fs.translate_errors("write an archive", dest, "write it to another disk"):
            try:
                with temporary.open("xb") as stream, _Writer(stream) as out:
                    out.add(HEADER, canonical_json(head))
                    done = 0
                    for digest in sorted(sizes):
                        with _content(store, digest, in_place) as content:
                            out.add_stream(f"blobs/{digest}", content, sizes[digest], digest)
                        done += sizes[digest]
                        progress(done, total, "bytes")
                    for action, data in sorted(actions_in.items()):
                        out.add(f"actions/{action}", data)
                    for action, trace in sorted(traces.items()):
                        out.add(f"traces/{action}", trace.to_bytes())
                    out.finish()
                fs.current.replace(temporary, dest)
            except BaseException as error:
                files.discard(temporary)
                if isinstance(error, ChangedError):
                    store.distrust(error.path, error.digest)
                raise
    return Packed(len(sizes), len(actions_in), len(traces), total, tuple(missing))


def import_archive(store: Store, source: Path, *, progress: Progress = no_progress) -> Packed:
    """Take an archive into the store.

    Raises InputError when it is not an archive of llmbuild, is damaged or ends early: then nothing but verified blobs
    was added.  A result that the store has whole already stays as it is.  Raises StoreError when the disk fails.
    """
    try:
        stream = source.open("rb")
    except OSError as error:
        raise InputError("the archive cannot be read", where=str(source), why=error.strerror or str(error)) from error
    with stream, guard(store.cas.guard_path, exclusive=False):
        try:
            return _Import(store, source, stream, progress).run()
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise _damaged(source, str(error) or "it ends early") from error


class _Writer:
    """Writes members and remembers their checksum."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tar = tarfile.open(  # noqa: SIM115 - `__exit__` closes it.
            fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, encoding="ascii"
        )
        self._checksum = hashlib.sha256()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def add(self, name: str, data: bytes) -> None:
        self.add_stream(name, io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())

    def add_stream(self, name: str, content: IO[bytes], size: int, digest: str) -> None:
        member = tarfile.TarInfo(name)
        member.size = size
        member.mode = 0o444
        self._tar.addfile(member, content)
        self._checksum.update(f"{name} {size} {digest}\n".encode())

    def finish(self) -> None:
        self.add(CHECKSUM, self._checksum.hexdigest().encode())


class _Import:
    """One import.  The order of members is fixed, so that one pass over the file does."""

    def __init__(self, store: Store, source: Path, stream: IO[bytes], progress: Progress) -> None:
        self._store = store
        self._source = source
        self._progress = progress
        self._total = os.fstat(stream.fileno()).st_size
        self._tar = tarfile.open(  # noqa: SIM115 - the caller closes the file itself.
            fileobj=stream, mode="r|", encoding="ascii", errors="strict"
        )
        self._checksum = hashlib.sha256()
        self._blobs = self._size = self._new_blobs = 0

    def run(self) -> Packed:
        members = self._members()
        head = self._header(next(members, None))
        actions: dict[Digest, bytes] = {}
        traces: dict[Digest, Trace] = {}
        ended = False
        for name, member in members:
            if ended:
                raise self._wrong(f"{name} comes after the checksum")
            if name == CHECKSUM:
                expected = self._checksum.hexdigest()
                if self._small(name, member) != expected.encode():
                    raise self._wrong("its checksum is not right")
                ended = True
                continue
            folder, _, rest = name.partition("/")
            digest = known_digest(rest)
            if folder not in ("blobs", "actions", "traces") or digest is None:
                raise self._wrong(f"it has a member named {name!r}")
            if folder == "blobs":
                self._blob(name, digest, member)
            elif folder == "actions":
                actions[digest] = self._action(name, digest, member)
            else:
                traces[digest] = self._trace(name, digest, member)
        if not ended:
            raise self._wrong("it ends early")
        if head != {"format": ARCHIVE_FORMAT, "blobs": self._blobs, "actions": len(actions), "traces": len(traces)}:
            raise self._wrong("it does not have the members that it announces")
        return self._accept(actions, traces)

    def _accept(self, actions: dict[Digest, bytes], traces: dict[Digest, Trace]) -> Packed:
        """Write records and traces: from here on the results count."""
        store = self._store
        for trace in traces.values():
            try:
                whole = not store.cas.missing(store.cas.get_tree(trace.output))
            except StoreError:
                whole = False
            if not whole:
                raise self._wrong(f"it has the trace of {trace.label} without its whole output")
        for digest, data in actions.items():
            path = store.action_path(digest)
            if not path.exists():
                # No project of this store requested it, whatever the archive claims.
                record = replace(parse_action(data), project="")
                files.write_atomic(path, canonical_json(record.to_json()), scratch=store.scratch())
        fresh = [trace for action, trace in traces.items() if not isinstance(lookup(store, action), Cached)]
        for trace in fresh:
            store.traces.put(trace)
        return Packed(
            self._blobs,
            len(actions),
            len(traces),
            self._size,
            new_blobs=self._new_blobs,
            new_traces=len(fresh),
        )

    def _members(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        for member in self._tar:
            # A sparse file may claim to be larger than any disk.
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise self._wrong(f"its member {member.name!r} is not a regular file")
            yield member.name, member

    def _header(self, first: tuple[str, tarfile.TarInfo] | None) -> object:
        if first is None or first[0] != HEADER:
            raise self._wrong("it is not an archive that `llmbuild cache export` wrote")
        try:
            head = records.json_object(self._small(*first))
        except ValueError as error:
            raise self._wrong("its header is not JSON") from error
        if head.get("format") != ARCHIVE_FORMAT:
            raise self._wrong("its format is another one than this llmbuild reads")
        return head

    def _blob(self, name: str, digest: Digest, member: tarfile.TarInfo) -> None:
        content = self._open(member)
        known = self._store.cas.has(digest, member.size)
        size = take_blob(self._store, digest, iter(lambda: content.read(CHUNK), b""), size=member.size)
        self._checksum.update(f"{name} {size} {digest}\n".encode())
        self._blobs += 1
        self._new_blobs += not known
        self._size += size
        self._progress(min(member.offset_data + size, self._total), self._total, "bytes")

    def _action(self, name: str, digest: Digest, member: tarfile.TarInfo) -> bytes:
        data = self._small(name, member)
        try:
            right = parse_action(data).action.digest == digest
        except ValueError:
            right = False
        if not right:
            raise self._wrong(f"its action {digest[:12]} is damaged")
        return data

    def _trace(self, name: str, digest: Digest, member: tarfile.TarInfo) -> Trace:
        try:
            trace = Trace.from_bytes(self._small(name, member))
        except ValueError as error:
            raise self._wrong(f"its trace {digest[:12]} is damaged") from error
        if trace.action != digest:
            raise self._wrong(f"its trace {digest[:12]} is of another action")
        return trace

    def _small(self, name: str, member: tarfile.TarInfo) -> bytes:
        if member.size > records.MOST_RECORD:
            raise self._wrong(f"its member {name!r} is too large")
        data = self._open(member).read()
        if len(data) != member.size:
            raise self._wrong("it ends early")
        self._checksum.update(f"{name} {len(data)} {hashlib.sha256(data).hexdigest()}\n".encode())
        return data

    def _open(self, member: tarfile.TarInfo) -> IO[bytes]:
        content = self._tar.extractfile(member)
        assert content is not None, "only regular files get here"
        return content

    def _wrong(self, why: str) -> InputError:
        return _damaged(self._source, why)


def _damaged(source: Path, why: str) -> InputError:
    return InputError(
        "the archive cannot be imported",
        where=str(source),
        why=why,
        fix="export it again; no result was taken from it",
    )


def _content(store: Store, digest: Digest, in_place: Mapping[Digest, Pieces]) -> IO[bytes]:
    """The bytes of a blob, or of the file that has them elsewhere."""
    place = in_place.get(digest)
    return store.cas.path(digest).open("rb") if place is None else io.BufferedReader(PiecesReader(place))


def _record(store: Store, action: Digest) -> bytes | None:
    """An action's record, if it is right, without the project: nobody where it is imported has requested it."""
    with contextlib.suppress(StoreError):
        return canonical_json(replace(store.get_action(action), project="").to_json())
    return None
