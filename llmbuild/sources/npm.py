"""A package of an npm registry: its archive, verified against the digest that is pinned, and the module that a page loads.

The registry's interface is https://github.com/npm/registry/blob/main/docs/REGISTRY-API.md; no npm is needed.
"""

from __future__ import annotations

import base64
import posixpath
import re
import urllib.error
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llmbuild.errors import FetchError, did_you_mean
from llmbuild.jsontext import MOST_BYTES, parse_json
from llmbuild.printable import several
from llmbuild.sources.archive import Archive
from llmbuild.sources.copying import Meter, Progress
from llmbuild.sources.http import Promise, download
from llmbuild.sources.npmrc import PUBLIC, Registry, registry_of
from llmbuild.sources.request import attempts, fetchable, open_url, refusal, whole_body
from llmbuild.sources.select import check_relative
from llmbuild.sources.shape import INTEGRITY
from llmbuild.urls import same_origin, shown

_ABBREVIATED = {"Accept": "application/vnd.npm.install-v1+json, application/json;q=0.8"}
_LICENSE = re.compile(r"(licen[cs]e|copying|notice)([.-][a-z0-9.-]+)?", re.IGNORECASE)
_MOST_FILE = 256 << 20
"""Bytes of the largest module that a page can load."""


@dataclass(frozen=True, slots=True)
class Published:
    """One version of a package as its registry announces it."""

    integrity: str
    tarball: str
    registry: Registry


def resolve(package: str, version: str) -> Published:
    """What the configured registry announces of a version.  Raises FetchError or UsageError."""
    where = f"npm:{package}=={version}"
    registry = registry_of(package)
    url = f"{registry.url}/{urllib.parse.quote(package, safe='@')}"

    def refused(_url: str, error: urllib.error.HTTPError) -> Exception:
        return _refusal(error, registry, where)

    def attempt() -> bytes:
        with open_url(url, _ABBREVIATED, registry.credentials, refused) as response:
            return whole_body(response, MOST_BYTES)

    try:
        data: bytes = attempts(
            attempt, where, "the registry cannot be reached", "check the network and npm's setting 'registry'"
        )
        versions = _table(parse_json(data), "versions")
        if version not in versions:
            raise FetchError("the registry has no such version", where=where, fix=f"it has {_newest(versions)}")
        dist = _table(versions[version], "dist")
        tarball = dist.get("tarball")
        if not isinstance(tarball, str):
            raise ValueError("it names no archive of the version")
        urllib.parse.urlsplit(tarball)
    except ValueError as error:
        raise FetchError(
            "the registry's answer is not understood",
            where=where,
            why=str(error),
            fix=f"check npm's setting 'registry' ({shown(registry.url)}); if it is right, try again later",
        ) from error
    # There may be several digests, and then those of the strongest algorithm count.
    integrity = next((one for one in str(dist.get("integrity")).split() if INTEGRITY.fullmatch(one)), None)
    if integrity is None:
        raise FetchError(
            "the registry announces no SHA-512 for the package",
            where=where,
            why="what is downloaded could not be checked",
            fix="choose another version, or another registry (npm's setting 'registry')",
        )
    return Published(integrity, _at(registry, tarball), registry)


def fetch(
    package: str,
    version: str,
    integrity: str,
    out: Path,
    scratch: Path,
    partial: Path,
    progress: Progress,
    sizes: Mapping[str, int],
) -> None:
    """Put out the module that the package's `main` names, and its licenses, flat.

    `integrity` is that of the archive, `sizes` are those of the files that are put out, where the lock records them.  Raises
    FetchError, StoreError or UsageError.
    """
    where = f"npm:{package}=={version}"
    published = resolve(package, version)
    if published.integrity != integrity:
        from llmbuild.sources.remote import broken_promise

        raise broken_promise(where, f"promised {integrity}, and the registry now has {published.integrity}")
    tarball = published.tarball
    fetchable(tarball)
    archive = scratch / "package.tgz"
    meter = Meter(progress, 0)
    download(
        tarball,
        archive,
        Promise(sha512=base64.b64decode(integrity.removeprefix("sha512-")).hex()),
        partial=partial,
        add=meter.add,
        credentials=published.registry.credentials if same_origin(tarball, published.registry.url) else {},
    )
    with Archive(archive, "tar", where) as file:
        for name in _wanted(file, where):
            dest = PurePosixPath(name).name
            file.copy(name, out / dest, meter.add, sizes.get(dest, _MOST_FILE))
    archive.unlink()


def _wanted(archive: Archive, where: str) -> list[str]:
    """The members to take: npm leaves out the first folder of each name, whatever it is called."""
    members = {name.partition("/")[2]: name for name in archive.names}
    if "package.json" not in members:
        raise FetchError("the archive is no package of npm", where=where, why="it has no package.json")
    try:
        described = parse_json(archive.read(members["package.json"], MOST_BYTES))
        main = posixpath.normpath(str(described.get("module") or described.get("main") or "index.js"))
        check_relative(main)
    except (ValueError, AttributeError) as error:
        raise FetchError("the package.json of the package names no module", where=where, why=str(error)) from error
    if main not in members:
        raise FetchError(
            "the module that package.json names is not in the package",
            where=where,
            why=did_you_mean(main, members) or f"there is no '{main}'",
        )
    licenses = sorted(name for name in members if _LICENSE.fullmatch(name))
    return [members[name] for name in (main, *licenses)]


def _at(registry: Registry, tarball: str) -> str:
    """The archive's URL; where a mirror passes on the public registry's own answer, at the mirror, as npm has it."""
    if registry.url != PUBLIC and tarball.startswith(f"{PUBLIC}/"):
        return registry.url + tarball.removeprefix(PUBLIC)
    return tarball


def _newest(versions: Mapping[str, Any]) -> str:
    """Some versions for a message: those that were published last."""
    last = list(versions)[-3:]
    return several(last) if len(versions) <= len(last) else f"{', '.join(last)} and {len(versions) - len(last)} others"


def _table(value: Any, name: str) -> Mapping[str, Any]:
    """The JSON object that an object has under a name.  Raises ValueError."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"it has no {name}")
    return found


def _refusal(error: urllib.error.HTTPError, registry: Registry, where: str) -> Exception:
    if error.code == 404:
        return FetchError(
            "the registry has no such package",
            where=where,
            why=f"{shown(registry.url)} answered 404",
            fix="check the name, and npm's setting 'registry'",
        )
    if error.code in (401, 403):
        return FetchError(
            "the registry refuses",
            where=where,
            why=f"{shown(registry.url)} answered {error.code}",
            fix="give a token that may read it: //host/:_authToken=… in ~/.npmrc",
        )
    return refusal(registry.url, error)
