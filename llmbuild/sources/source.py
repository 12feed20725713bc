"""The two sides of a source: what planning observes of it, and how the fetch task gets its bytes.

Observing gives `params`, which enter the fetch task's key and identify the bytes (contents of local files, a commit, a
digest, a package version), and `hints`, which only tell where to look (a path, a URL, what the lock file promises).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.canonical import Json, parse_digest
from llmbuild.errors import FetchError, StoreError
from llmbuild.sources.copying import Progress
from llmbuild.sources.local import StatCache
from llmbuild.sources.pins import (
    Lock,
    SourceSpec,
    applies,
    lock_key,
    promise_broken,
    promised_files,
    promised_sizes,
    single_file,
)


def observe(
    source: SourceSpec,
    root: Path,
    statcache: StatCache,
    lock: Lock,
    *,
    source_format: str | None = None,
    offline: bool = False,
    partial: Path | None = None,
    have: Path | None = None,
    manifest: Path | None = None,
) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    """The params {"source", "files"} and the hints of a source's fetch task.

    `root` is where relative paths start, `partial` where unfinished downloads are kept between runs, `have` a directory
    of blobs in which promised files are looked for before they are downloaded, `manifest` the file that has the query of a
    URL.  A revision of a hub that the lock does
    not pin is resolved by network and put into the lock.  Raises FetchError when the source is
    missing, is not a checkpoint, or cannot be resolved (`offline` and not pinned).
    """
    source_format = None if source_format == "auto" else source_format
    form: dict[str, Json] = {} if source_format is None else {"format": source_format}
    spec = dict(source.spec)
    if source.kind in ("path", "gguf"):
        return _observe_local(source.kind, root / spec["path"], source_format, statcache)
    hints: dict[str, Json] = {"offline": offline}
    if partial is not None:
        hints["partial"] = str(partial)
    if have is not None:
        hints["have"] = str(have)
    key = lock_key(source, source_format)
    pin = None if key is None else lock.get(key)
    if pin is not None and not applies(source, pin):
        pin = None
    identity: dict[str, Json]
    if source.kind == "hf":
        commit, files = _pinned(spec, source_format, key or "", pin, lock, offline)
        identity = {"repo": spec["repo"], "commit": commit}
        if "path" in spec:
            identity["path"] = spec["path"]
        if files:
            hints["files"] = files
    elif source.kind == "https":
        from llmbuild.sources.form import form_of
        from llmbuild.urls import lacks_query

        identity = {"sha256": spec["sha256"], "form": form_of(spec["url"])}
        hints["url"] = spec["url"]
        if manifest is not None and lacks_query(spec["url"]):
            hints["manifest"] = str(manifest)
    elif source.kind == "pypi":
        identity = dict(spec)
    else:
        raise ValueError(f"a source of kind {source.kind!r} has nothing to fetch")
    if source.kind != "hf" and pin is not None and pin.get("files"):
        hints["files"] = pin["files"]
    return {"source": {"kind": source.kind, **identity, **form}, "files": {}}, hints


def _observe_local(
    kind: str, path: Path, source_format: str | None, statcache: StatCache
) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    from llmbuild.sources import local
    from llmbuild.sources.select import output_name

    path = path.absolute()
    if kind == "path":
        files = local.observe_directory(path, source_format, statcache)
        only = next(iter(files))
        if not (len(files) == 1 and only.lower().endswith(".gguf")):
            return {"source": {"kind": "path"}, "files": files}, {"path": str(path)}
        # A directory with nothing but a GGUF file is that file, whatever its name.
        return {"source": {"kind": "gguf"}, "files": {output_name(only): files[only]}}, {"path": str(path / only)}
    return {"source": {"kind": "gguf"}, "files": local.observe_gguf(path, statcache)}, {"path": str(path)}


def _pinned(
    spec: Mapping[str, str],
    source_format: str | None,
    key: str,
    pin: Mapping[str, Any] | None,
    lock: Lock,
    offline: bool,
) -> tuple[str, Mapping[str, Json]]:
    """The commit of a hub's revision and the promised files (none when a commit is given and the lock has no more)."""
    if pin is not None:
        return pin["commit"], pin.get("files", {})
    from llmbuild.sources import hub
    from llmbuild.sources.hub_answer import is_commit

    if offline and is_commit(spec["revision"]):
        return spec["revision"], {}
    if offline:
        raise FetchError(
            f"the revision '{spec['revision']}' is not pinned",
            where=f"hf:{spec['repo']}",
            why="the lock file does not have it, and --offline forbids to ask the hub",
            fix="run `llmbuild lock` once with a network",
        )
    resolved = hub.resolve(spec["repo"], spec["revision"], spec.get("path"), source_format).to_json()
    lock.put(key, resolved)
    files: Any = resolved["files"]
    return str(resolved["commit"]), files


def fetch(params: Mapping[str, Any], hints: Mapping[str, Any], out: Path, scratch: Path, progress: Progress) -> None:
    """Put the files of an observed source into `out`.  Raises FetchError, StoreError, ToolchainError or UsageError.

    Files with a known SHA-256 that lie in the directory of blobs `hints["have"]` are not downloaded; what arrives is held
    against `hints["files"]`, the lock file's promises.
    """
    from llmbuild.sources.shape import ShapeError, check_fetch

    try:
        check_fetch(params, hints)
    except ShapeError as error:
        raise StoreError(
            "the record of a fetch is damaged", why=str(error), fix="run `llmbuild build`, which records it anew"
        ) from error
    source = params["source"]
    kind = source["kind"]
    if kind in ("path", "gguf"):
        from llmbuild.sources import local

        copy = local.copy_directory if kind == "path" else local.copy_gguf
        copy(Path(hints["path"]), params["files"], out, progress)
        return
    from llmbuild.sources import held

    pin = {"commit": source.get("commit"), "files": hints.get("files") or {}}
    wanted = promised_files(pin) or single_file(source)
    have = Path(hints["have"]) if "have" in hints else None
    if wanted and held.take_all(have, wanted, out, progress):
        return
    if hints.get("offline"):
        raise FetchError(
            "has to be downloaded",
            where=named(source),
            why="it is not in the cache, and --offline forbids to use the network",
            fix="build once without --offline",
        )
    partial = Path(hints["partial"]) if "partial" in hints else scratch / "partial"
    source_format = source.get("format")
    if kind == "hf":
        from llmbuild.sources import hub

        resolved = (
            hub.Pin.from_json(pin)
            if pin["files"]
            else hub.resolve(source["repo"], source["commit"], source.get("path"), source_format)
        )
        hub.fetch(source["repo"], resolved, out, partial, progress, have=have)
        return
    if kind == "https":
        from llmbuild.sources import url

        address = url.whole(hints["url"], Path(hints["manifest"]) if "manifest" in hints else None)
        url.fetch(
            address,
            parse_digest(source["sha256"]),
            source["form"],
            source_format,
            out,
            scratch,
            partial,
            progress,
            promised_sizes(pin),
        )
    else:
        from llmbuild.sources import pypi

        pypi.fetch(source, source_format, out, scratch, progress, promised_sizes(pin))
    _check_pinned(out, pin, named(source))


def named(source: Mapping[str, Any]) -> str:
    """How messages name a source, from a fetch task's `source` parameter."""
    if source["kind"] == "hf":
        return f"hf:{source['repo']}@{source['commit']}"
    if source["kind"] == "pypi":
        return f"pypi:{source['name']}=={source['version']}/{source['path']}"
    return f"the URL with the SHA-256 {source['sha256']}"


def _check_pinned(out: Path, pin: Mapping[str, Any], where: str) -> None:
    """Raise FetchError when the files that arrived are not those that were there when the source was locked."""
    if not pin["files"]:
        return
    from llmbuild.canonical import digest_file

    arrived = {path.name: (digest_file(path), path.stat().st_size) for path in out.iterdir()}
    broken = promise_broken(pin, arrived)
    if broken is not None:
        for name in arrived:
            (out / name).unlink()
        raise broken_promise(where, broken)


def broken_promise(where: str, why: str) -> FetchError:
    """The error of a source that is not what the lock file says."""
    return FetchError(
        "is not what was locked",
        where=where,
        why=why,
        fix="if it was rightly replaced, run `llmbuild lock --upgrade` and commit the lock file",
    )
