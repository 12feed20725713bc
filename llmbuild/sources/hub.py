"""Models on a hub that speaks the Hugging Face API: `hf:org/name`, pinned to a commit.

The hub's client lists a revision's commit and files; the files themselves are streamed by `http.download` and checked
against what the hub announces (SHA-256 for large files, git's object id for the small ones that are kept in git).
HF_ENDPOINT names another hub, HF_TOKEN (or the client's saved login) is sent to that hub only.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.canonical import Json
from llmbuild.errors import FetchError, did_you_mean
from llmbuild.sources import http
from llmbuild.sources.copying import Meter, Progress
from llmbuild.sources.held import take
from llmbuild.sources.http import Promise, download, shown
from llmbuild.sources.select import needed_files, output_name

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GONE = 404


@dataclass(frozen=True, slots=True)
class Pin:
    """A revision as it was resolved: its commit (40 hexadecimal digits) and the needed files with their promises."""

    commit: str
    files: Mapping[str, Promise]

    def to_json(self) -> Mapping[str, Json]:
        """As the lock file holds it."""
        files: dict[str, Json] = {}
        for name, promise in sorted(self.files.items()):
            known = {"size": promise.size, "sha256": promise.sha256, "git-sha1": promise.git_sha1}
            files[name] = {key: value for key, value in known.items() if value is not None}
        return {"commit": self.commit, "files": files}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Pin:
        """From the lock file, whose reader has checked the types."""
        files = {
            name: Promise(entry.get("size"), entry.get("sha256"), entry.get("git-sha1"))
            for name, entry in value.get("files", {}).items()
        }
        return Pin(value["commit"], files)


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit, which needs no resolving."""
    return _COMMIT.fullmatch(revision) is not None


def resolve(repo: str, revision: str, path: str | None, source_format: str | None) -> Pin:
    """Ask the hub for a revision's commit and needed files (`path` names one file instead).

    Raises FetchError when the hub cannot be reached or refuses, when the revision has no checkpoint, or when the hub
    promises no digest for a needed file.
    """
    where = f"hf:{repo}@{revision}"
    info = _model_info(repo, revision, where)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    if not isinstance(info.sha, str) or not is_commit(info.sha):
        raise FetchError("the hub names no commit for the revision", where=where, why=f"it says {info.sha!r}")
    if path is None:
        names = needed_files(list(siblings), source_format, where)
    elif path in siblings:
        names = [path]
    else:
        raise FetchError(f"there is no file '{path}'", where=where, fix=did_you_mean(path, siblings))
    return Pin(info.sha, {name: _promise(siblings[name], where) for name in names})


def fetch(repo: str, pin: Pin, out: Path, partial: Path, progress: Progress, *, have: Path | None = None) -> None:
    """Put the files of a pinned revision into `out`: taken from the blobs in `have`, or downloaded."""
    total = sum(promise.size or 0 for promise in pin.files.values())
    meter = Meter(progress, total)
    token = _token()
    for name, promise in pin.files.items():
        dest = out / output_name(name)
        if take(have, promise.sha256, dest, meter.add):
            continue
        download(
            f"{endpoint()}/{repo}/resolve/{pin.commit}/{urllib.parse.quote(name)}",
            dest,
            promise,
            partial=partial,
            add=meter.add,
            credentials={"Authorization": f"Bearer {token}"} if token else {},
        )


def endpoint() -> str:
    """The hub's address without a slash at the end."""
    chosen = os.environ.get("HF_ENDPOINT")
    if chosen:
        return chosen.rstrip("/")
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


def _token() -> str | None:
    from huggingface_hub import get_token

    token: str | None = get_token()
    return token


def _promise(sibling: Any, where: str) -> Promise:
    if sibling.lfs is not None and isinstance(sibling.lfs.sha256, str) and _SHA256.fullmatch(sibling.lfs.sha256):
        return Promise(sibling.lfs.size, sha256=sibling.lfs.sha256)
    if isinstance(sibling.blob_id, str) and _COMMIT.fullmatch(sibling.blob_id):
        return Promise(sibling.size, git_sha1=sibling.blob_id)
    raise FetchError(
        f"the hub announces no digest for '{sibling.rfilename}'",
        where=where,
        why="what is downloaded could not be checked",
        fix="use another endpoint, or download the files and give their directory",
    )


def _model_info(repo: str, revision: str, where: str) -> Any:
    """The hub's record of a revision, with sizes and digests of its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi(endpoint=endpoint(), token=_token() or False, library_name="llmbuild")
    for attempt in range(1, http.POLICY.attempts + 1):
        try:
            return api.model_info(repo, revision=revision, files_metadata=True, timeout=http.POLICY.timeout)
        except GatedRepoError as error:
            raise FetchError(
                "access to the model is restricted",
                where=where,
                fix="accept its terms on its page at the hub, and set HF_TOKEN to a token of that account",
            ) from error
        except RevisionNotFoundError as error:
            raise FetchError("the model has no such revision", where=where, fix="check the revision") from error
        except RepositoryNotFoundError as error:
            raise FetchError(
                "the hub has no such model, or it is private",
                where=where,
                fix="check the name; for a private model set HF_TOKEN to a token that may read it",
            ) from error
        except OfflineModeIsEnabled as error:
            raise FetchError("the hub may not be asked", where=where, why="HF_HUB_OFFLINE is set") from error
        except HFValidationError as error:
            raise FetchError("is not a model of a hub", where=where, why=str(error)) from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status < 500 and status not in (408, 429):
                raise FetchError(
                    "the hub refuses",
                    where=where,
                    why=f"{shown(endpoint())} answered {status}",
                    fix="check the name and the revision" if status == _GONE else "check HF_TOKEN",
                ) from error
            why = f"{shown(endpoint())} answered {status}"
        except (KeyError, TypeError, ValueError) as error:
            raise FetchError(
                "the hub's answer is not understood", where=where, why=f"{type(error).__name__}: {error}"
            ) from error
        except Exception as error:  # The client's HTTP library, which has changed over time, raises its own errors.
            why = f"{shown(endpoint())}: {error or type(error).__name__}"
        if attempt < http.POLICY.attempts:
            http.POLICY.pause(attempt - 1)
    raise FetchError(
        "the hub cannot be reached",
        where=where,
        why=f"{why} ({http.POLICY.attempts} attempts)",
        fix="check the network and HF_ENDPOINT, or build with a pinned revision that is already in the cache",
    )
