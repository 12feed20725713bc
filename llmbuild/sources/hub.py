"""Models on a hub that speaks the Hugging Face API: `hf:org/name`, pinned to a commit.

The hub's API lists a revision's commit and files (hub_answer.py checks the answer); the files themselves are streamed by
`http.download` and checked against what the hub announces (SHA-256 for large files, git's object id for the small ones that are
kept in git).  HF_ENDPOINT names another hub, HF_TOKEN (or the saved login of the hub's client) is sent to that hub only, and to
another machine over https only.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from llmbuild.canonical import Json, parse_digest
from llmbuild.checkpoints.names import GENERATION_CONFIG, TOKENIZER_CONFIG
from llmbuild.checkpoints.weight_files import INDEXES
from llmbuild.errors import FetchError, InputError, LlmbuildError, UsageError, did_you_mean
from llmbuild.jsontext import MOST_BYTES
from llmbuild.sources.advice import fitting
from llmbuild.sources.copying import Meter, Progress
from llmbuild.sources.http import Promise, download
from llmbuild.sources.hub_answer import Revision, is_commit, parse_revision
from llmbuild.sources.kind import Refused
from llmbuild.sources.local_blobs import take
from llmbuild.sources.request import (
    SOON_S,
    TOKEN,
    WRONG_TOKEN,
    TransientError,
    attempts,
    head,
    open_url,
    retry_after,
    whole_body,
)
from llmbuild.sources.select import (
    GGUF_NAME,
    MOST_DESCRIPTION,
    MOST_SETTINGS,
    begins_gguf,
    check_relative,
    descriptions,
    gguf_of,
    is_description,
    needed_files,
    output_name,
    transfer_order,
    unread_weights,
)
from llmbuild.urls import service_address, shown

_GONE = 404
_BUSY = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Pin:
    """A revision as it was resolved: its commit (40 hexadecimal digits) and the needed files with their promises."""

    commit: str
    files: Mapping[str, Promise]
    unread: str | None = None
    """A file of weights of another format, which is not needed; known when the revision is resolved, and not recorded."""

    def to_json(self) -> Mapping[str, Json]:
        """As the lock file records it."""
        files: dict[str, Json] = {}
        for name, promise in sorted(self.files.items()):
            known = {"size": promise.size, "sha256": promise.sha256, "git-sha1": promise.git_sha1}
            files[name] = {key: value for key, value in known.items() if value is not None}
        return {"commit": self.commit, "files": files}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Pin:
        """From the lock file, whose reader has checked the types."""
        files = {}
        for name, entry in value.get("files", {}).items():
            sha256 = parse_digest(entry["sha256"]) if "sha256" in entry else None
            files[name] = Promise(entry.get("size"), sha256, entry.get("git-sha1"))
        return Pin(value["commit"], files)


def resolve(
    repo: str, revision: str, path: str | None, source_format: str | None, *, refused: Refused | None = None
) -> Pin:
    """Resolve a revision to its commit and needed files (`path` names one file instead); to its commit alone where an index would
    tell the files, and the checkpoint is `refused` without it.

    Raises FetchError when the hub cannot be reached or refuses, when the revision has no checkpoint, or when the hub
    promises no digest for a needed file.
    """
    where = f"hf:{repo}@{revision}"
    revised = _ask(repo, revision, where)
    siblings = revised.files
    commit = revised.commit
    if not isinstance(commit, str) or not is_commit(commit):
        raise FetchError("the hub names no commit for the revision", where=where, why=f"it says {commit!r:.100}")
    if is_commit(revision) and commit != revision:
        raise FetchError("the hub names another commit than was asked for", where=where, why=f"it says {commit}")
    if path is None and refused is not None and any(name in siblings for name in INDEXES):
        described = {name: promise for name, promise in siblings.items() if promise and is_description(name)}
        sent = description(repo, Pin(commit, described))
        if sent is not None and refused(sent):
            return Pin(commit, {})
    if path is None:
        try:
            names = needed_files(
                list(siblings), source_format, where, lambda name: _content(repo, commit, name, siblings[name], where)
            )
        except InputError as error:
            error.fix = fitting(error.fix, remote=True)
            raise
    elif path in siblings:
        names = gguf_of(path, siblings, where)
    else:
        raise FetchError(f"there is no file '{path}'", where=where, fix=did_you_mean(path, siblings))
    files = {name: _promise(name, siblings[name], where) for name in names}
    return Pin(commit, files, unread_weights(siblings, names, source_format))


def fetch(repo: str, pin: Pin, out: Path, partial: Path, progress: Progress, *, have: Path | None = None) -> None:
    """Put the files of a pinned revision into `out`: taken from the blobs in `have`, or downloaded."""
    total = sum(promise.size or 0 for promise in pin.files.values())
    meter = Meter(progress, total)
    hub, credentials = endpoint(), _credentials()
    for name, promise in sorted(pin.files.items(), key=lambda item: transfer_order(item[0])):
        dest = out / output_name(name)
        if take(have, promise.sha256, dest, meter.add):
            continue
        url = _url(hub, repo, pin.commit, name)
        download(url, dest, promise, partial=partial, add=meter.add, credentials=credentials)


def _url(hub: str, repo: str, commit: str, name: str) -> str:
    return f"{hub}/{urllib.parse.quote(repo)}/resolve/{commit}/{urllib.parse.quote(name)}"


def _content(repo: str, commit: str, name: str, announced: Promise | None, where: str) -> bytes:
    """A small file of a revision, which is what the hub announces."""
    promise, url, credentials = _promise(name, announced, where), _url(endpoint(), repo, commit, name), _credentials()

    def attempt() -> bytes:
        with open_url(url, {}, credentials) as response:
            return whole_body(response, MOST_BYTES)

    try:
        data: bytes = attempts(
            attempt, shown(url), "cannot be downloaded", "run the build again when the network is better"
        )
    except ValueError as error:
        raise FetchError("is too large to be an index", where=shown(url), why=str(error)) from error
    if not promise.holds(data):
        raise FetchError(
            "what was downloaded is not what was promised",
            where=shown(url),
            why="it has another digest than the hub announces",
            fix="try again later; if it stays so, the server's copy is damaged",
        )
    return data


def description(repo: str, pin: Pin) -> Mapping[str, bytes] | None:
    """The files of a pinned revision that `descriptions` selects, checked against their promises (no settings that are
    large), or the head of its GGUF file; None when the hub does not send one of them at once, or sends something else."""
    found: dict[str, bytes] = {}
    wanted = descriptions(pin.files)
    try:
        hub, credentials = endpoint(), _credentials()
        for name, promise in pin.files.items():
            url = _url(hub, repo, pin.commit, name)
            if name in (TOKENIZER_CONFIG, GENERATION_CONFIG) and (promise.size is None or promise.size > MOST_SETTINGS):
                continue
            if name in wanted:
                with open_url(url, {}, credentials, timeout=SOON_S) as response:
                    found[name] = whole_body(response, MOST_DESCRIPTION)
                if not promise.holds(found[name]):
                    return None
            elif begins_gguf(name):
                found[GGUF_NAME] = head(url, credentials)
    except (LlmbuildError, TransientError, ValueError):
        return None
    return found or None


def endpoint() -> str:
    """The hub's address without a slash at the end.  Raises UsageError when HF_ENDPOINT is none."""
    chosen = os.environ.get("HF_ENDPOINT")
    if not chosen:
        return str(_client("constants").ENDPOINT).rstrip("/")
    try:
        service_address(chosen, "HF_TOKEN")
    except ValueError as error:
        raise UsageError(
            f"HF_ENDPOINT is not the address of a hub: '{shown(chosen)}'",
            why=str(error) or None,
            fix="set it to https://host, or unset it for the usual hub",
        ) from error
    return chosen.rstrip("/")


def _client(module: str) -> Any:
    """A module of the hub's client.  Raises UsageError when it cannot be imported: it reads the environment then."""
    try:
        return import_module(f"huggingface_hub.{module}")
    except ValueError as error:
        raise UsageError(
            "the client of the hub cannot be used",
            why=str(error)[:300],
            fix="check the variables HF_… of the environment (HF_HUB_DOWNLOAD_TIMEOUT and others hold numbers)",
        ) from error


def _credentials() -> Mapping[str, str]:
    """The header with the user's token, if there is one.  Raises UsageError when no header can contain it."""
    auth = _client("utils")
    try:
        token: str | None = auth.get_token()
    except Exception as error:  # Where the user has logged in, the client may use the network, with errors of its own.
        raise FetchError(
            "the token for the hub cannot be had",
            why=f"{type(error).__name__}: {error}"[:300],
            fix="set HF_TOKEN, or log in again with `hf auth login`",
        ) from error
    if not token:
        return {}
    check_token(token, fix="set HF_TOKEN to the token alone, or log in again with `hf auth login`")
    return {"Authorization": f"Bearer {token}"}


def check_token(token: str, *, fix: str = "set HF_TOKEN to the token alone") -> None:
    """Raise UsageError where no header can contain the token."""
    if not TOKEN.fullmatch(token):
        raise UsageError("the token for the hub cannot be a token", why=WRONG_TOKEN, fix=fix)


def _promise(name: str, promise: Promise | None, where: str) -> Promise:
    try:
        check_relative(name)
    except ValueError as error:
        raise _not_understood(where, f"a file's name {error}") from None
    if promise is None:
        raise FetchError(
            f"the hub announces no digest for '{name}'",
            where=where,
            why="what is downloaded could not be checked",
            fix="use another endpoint, or download the files and give their directory",
        )
    return promise


def _ask(repo: str, revision: str, where: str) -> Revision:
    """The hub's record of a revision, with sizes and digests of its files."""
    hub = endpoint()
    try:
        _client("utils").validate_repo_id(repo)
    except ValueError as error:
        raise FetchError("is not a model of a hub", where=where, why=str(error)) from error
    if _client("constants").HF_HUB_OFFLINE:
        raise FetchError("the hub may not be asked", where=where, why="HF_HUB_OFFLINE is set")
    credentials = _credentials()
    url = f"{hub}/api/models/{repo}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"

    def attempt() -> bytes:
        try:
            with open_url(url, {"Accept": "application/json"}, credentials, refused) as response:
                return _body(response, where)
        except TransientError as error:
            raise TransientError(f"{shown(hub)}: {error}", error.after) from error

    def refused(_url: str, error: urllib.error.HTTPError) -> Exception:
        return _refusal(error, where)

    data: bytes = attempts(
        attempt,
        where,
        "the hub cannot be reached",
        "check the network and HF_ENDPOINT, or build with a pinned revision that is already in the cache",
    )
    try:
        return parse_revision(data)
    except ValueError as error:
        raise _not_understood(where, str(error)) from error


def _body(response: Any, where: str) -> bytes:
    """The whole body of an answer, which is refused when it has more bytes than a list of files can have."""
    try:
        return whole_body(response, MOST_BYTES)
    except ValueError as error:
        raise _not_understood(where, str(error)) from None


def _not_understood(where: str, why: str) -> FetchError:
    return FetchError(
        "the hub's answer is not understood",
        where=where,
        why=why,
        fix="check HF_ENDPOINT; if the hub is right, try again later",
    )


def _refusal(error: urllib.error.HTTPError, where: str) -> Exception:
    """The error for an HTTP status of the hub's API; a header of the hub's own adds detail."""
    code = error.headers.get("X-Error-Code")
    if error.code in _BUSY or error.code >= 500:
        return TransientError(f"the server answered {error.code}", retry_after(error))
    if code == "GatedRepo":
        return FetchError(
            "access to the model is restricted",
            where=where,
            fix="accept its terms on its page at the hub, and set HF_TOKEN to a token of that account",
        )
    if code == "RevisionNotFound":
        return FetchError("the model has no such revision", where=where, fix="check the revision")
    wrong_token = error.headers.get("X-Error-Message") == "Invalid credentials in Authorization header"
    if code == "RepoNotFound" or (error.code == 401 and not wrong_token):
        return FetchError(
            "the hub has no such model, or it is private",
            where=where,
            fix="check the name; for a private model set HF_TOKEN to a token that may read it",
        )
    return FetchError(
        "the hub refuses",
        where=where,
        why=f"{shown(endpoint())} answered {error.code}",
        fix="check the name and the revision" if error.code == _GONE else "check HF_TOKEN",
    )
