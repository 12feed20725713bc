"""`hf:org/name`: a model's repository on a hub that speaks the Hugging Face API.

All that differs goes into one commit upon the one that was looked at, so that no reader ever sees half a publication.  Large
files are uploaded before it, each under its SHA-256; the hub tells which of them it has.  Files that an earlier publication put
there, as its list of digests says, and that are no longer part of it are removed; others are left alone.

HF_ENDPOINT names another hub.  The token comes from HF_TOKEN and from nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from llmbuild.canonical import known_digest
from llmbuild.errors import FetchError, LlmbuildError, UsageError
from llmbuild.publishing.kind import CHECKSUMS, Destination, Difference, File, Publication, Sent, Wishes
from llmbuild.sources import hub
from llmbuild.urls import in_clear_text, shown
from llmbuild.version import __version__

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_MOST_SUMS = 1 << 20
"""The most bytes of a list of digests."""
_IN_MEMORY = 1 << 20
"""The most bytes of a file that is read, and verified, before it is handed to the client."""
_THREADS = 4
"""How many large files are uploaded at a time."""
_UNKNOWN, _FORBIDDEN, _RACE = 401, (401, 403), 412


@dataclass(frozen=True, slots=True)
class Hub:
    """The kind."""

    name: str = "hf"
    form: str = "hf:org/name"
    options: frozenset[str] = frozenset({"private", "revision"})

    def check(self, place: str) -> None:
        if not _REPO.fullmatch(place) or ".." in place or "--" in place or len(place) > 96:
            raise UsageError(
                f"'{place}' is not the name of a repository",
                why="it has an owner and a name of letters, digits, '-', '_' and '.', 96 characters at most, no '--' and no '..'",
                fix="write hf:org/name",
            )

    def open(self, place: str, wishes: Wishes, state: Path) -> Destination:
        return _Repository(place, wishes.revision or "main", wishes.private)


KIND = Hub()


@dataclass(frozen=True, slots=True)
class _Repository:
    repo: str
    revision: str
    private: bool | None

    @property
    def name(self) -> str:
        return f"hf:{self.repo}" + ("" if self.revision == "main" else f"@{self.revision}")

    def compare(self, publication: Publication) -> Difference:
        with _translated(self.name):
            api = _api()
            info = self._info(api)
            if info is None:
                return Difference.of(publication, {})
            self._require_visibility(info)
            there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
            listed = self._listed(api, there, info.sha)
        return Difference.of(
            publication,
            {file.name: _is(file, there[file.name]) for file in publication.files if file.name in there},
            before=listed & there.keys(),
            reference=self._reference(info.sha),
        )

    def require_login(self) -> None:
        _api(login_at=self.name)

    def send(self, publication: Publication, difference: Difference, sent: Sent) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        if difference.empty:
            assert difference.reference is not None
            return difference.reference
        with _translated(self.name), _plain_upload():
            api = _api(login_at=self.name)
            parent = self._prepared(api)
            if difference.reference is not None and parent != difference.reference.rpartition("@")[2]:
                raise _changed_meanwhile(self.name)
            stop = Event()
            operations: list[Any] = [CommitOperationDelete(name) for name in difference.removed]
            files = publication.named((*difference.new, *difference.changed))
            for file in files:
                small = isinstance(file.content, bytes) or file.size <= _IN_MEMORY
                added = CommitOperationAdd(file.name, file.whole() if small else str(file.content))
                # The client would hash what was hashed already; the hub verifies what it gets against it.
                added.upload_info.sha256 = bytes.fromhex(file.digest)
                _watch(added, sent, stop)
                operations.append(added)
            message = f"Publish {publication.facts.model} {publication.facts.scheme}".rstrip()
            # The client ends no upload when it is interrupted, so that it is not in the thread that is.
            with ThreadPoolExecutor(1) as thread:
                made = thread.submit(
                    self._commit, api, operations, f"{message} (llmbuild {__version__})", parent, files
                )
                try:
                    return self._reference(made.result().oid)
                except BaseException:
                    stop.set()
                    raise

    def _commit(self, api: Any, operations: list[Any], message: str, parent: str, files: Sequence[File]) -> Any:
        """Upload the large files, and make the commit with all operations."""
        added = {operation.path_in_repo: operation for operation in operations}
        first = {file.digest: added[file.name] for file in reversed(files)}
        if len(first) < len(files):
            # Of files with one content the client would upload each.  Of what the hub has by then it uploads nothing.
            api.preupload_lfs_files(
                self.repo, list(first.values()), revision=self.revision, num_threads=_THREADS, free_memory=False
            )
        return api.create_commit(
            self.repo,
            operations,
            commit_message=message,
            revision=self.revision,
            parent_commit=parent,
            num_threads=_THREADS,
        )

    def _reference(self, commit: str) -> str:
        return f"hf:{self.repo}@{commit}"

    def _info(self, api: Any) -> Any:
        """The state of the revision; None where the repository or the revision is missing."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            return api.model_info(self.repo, revision=self.revision, files_metadata=True)
        except RevisionNotFoundError:
            return None
        except RepositoryNotFoundError as error:
            # A hub answers 401 for a repository that is missing or private, when it has no token that it knows.
            if error.response.status_code in _FORBIDDEN and api.token:
                raise
            return None

    def _prepared(self, api: Any) -> str:
        """Make the repository and the branch where they are missing; returns the commit to build upon."""
        info = self._info(api)
        if info is None:
            api.create_repo(self.repo, private=self.private, exist_ok=True)
            if self.revision != "main":
                api.create_branch(self.repo, branch=self.revision, exist_ok=True)
            info = api.model_info(self.repo, revision=self.revision)
            self._require_visibility(info)
        commit: str = info.sha
        return commit

    def _require_visibility(self, info: Any) -> None:
        """Raise UsageError where the repository is public and should not be, or the other way round."""
        if self.private is None or bool(info.private) == self.private:
            return
        now, wish = ("private", "public") if info.private else ("public", "private")
        raise UsageError(
            f"the repository is {now}, and was to be {wish}",
            where=self.name,
            why="publishing does not change who can see a repository",
            fix=f"change it on its page at the hub, or do not ask for a {wish} one",
        )

    def _listed(self, api: Any, there: dict[str, Any], commit: str) -> set[str]:
        """The names in the list of digests of the last publication; none where there is no list that can be read."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session

        sums = there.get(CHECKSUMS)
        if sums is None or sums.size is None or sums.size > _MOST_SUMS:
            return set()
        url = hf_hub_url(self.repo, CHECKSUMS, revision=commit, endpoint=api.endpoint)
        response = get_session().get(url, headers=build_hf_headers(token=api.token))
        response.raise_for_status()
        lines = [_LINE.fullmatch(line) for line in response.text.splitlines()]
        return {CHECKSUMS, *(line[2] for line in lines if line is not None)}


def _is(file: File, sibling: Any) -> bool:
    """Whether a file at the hub has this content: large ones are known by their SHA-256, the others by git's object id."""
    from huggingface_hub.utils.sha import git_hash

    lfs = sibling.lfs
    if lfs is not None:
        return known_digest(lfs.sha256) == file.digest
    return bool(sibling.size == file.size and sibling.blob_id == git_hash(file.whole()))


def _api(*, login_at: str | None = None) -> Any:
    """The hub's client with the token of the environment.  Raises UsageError, also where a login is needed and there is none."""
    from huggingface_hub import HfApi

    endpoint, token = hub.endpoint(), os.environ.get("HF_TOKEN", "").strip()
    if login_at is not None and not token:
        raise UsageError(
            "publishing to a hub needs a token",
            where=login_at,
            why="HF_TOKEN is not set; a saved login is not used",
            fix="make an access token that may write in the settings of your account at the hub, and set HF_TOKEN to it",
        )
    if token:
        hub.check_token(token)
    if token and in_clear_text(endpoint):
        raise UsageError(
            "a token is not sent in clear text", where=shown(endpoint), fix="set HF_ENDPOINT to an https:// address"
        )
    return HfApi(endpoint=endpoint, token=token or False, library_name="llmbuild", library_version=__version__)


def _watch(added: Any, sent: Sent, stop: Event) -> None:
    """Have a file tell how many of its bytes were read for sending, until `stop` is set.  What another attempt sends again counts
    once."""
    plain, most = added.as_file, 0

    @contextlib.contextmanager
    def as_file(with_tqdm: bool = False) -> Iterator[Any]:
        with plain() as file:
            read = file.read

            def counted(size: int | None = -1) -> bytes:
                nonlocal most
                if stop.is_set():
                    raise CancelledError
                data: bytes = read(size)
                more = file.tell() - most
                if more > 0:
                    most += more
                    sent(more)
                return data

            if with_tqdm:
                # The client asks for this where it uploads, and not where it only reads.
                file.read = counted
            yield file

    added.as_file = as_file


@contextlib.contextmanager
def _plain_upload() -> Iterator[None]:
    """Have the client upload whole files by its plain protocol, which any hub speaks, and keep it quiet.

    Its other protocol keeps files of its own in the user's home and cannot be watched from here.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, logging

    before, level = constants.HF_HUB_DISABLE_XET, logging.get_verbosity()
    constants.HF_HUB_DISABLE_XET = True
    logging.set_verbosity_error()
    disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before
        logging.set_verbosity(level)


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Raise FetchError for what the client raises.  Its own texts quote URLs with signatures, so they are not shown."""
    try:
        yield
    except LlmbuildError:
        raise
    except Exception as error:
        from huggingface_hub.utils import httpx

        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status == _RACE:
            raise _changed_meanwhile(where) from error
        if status in _FORBIDDEN:
            unknown = status == _UNKNOWN
            raise FetchError(
                "the hub does not let you publish here",
                where=where,
                why=f"it answered {status}: "
                + ("it does not know the token" if unknown else "the token may not do this"),
                fix="set HF_TOKEN to a token that may write to the repository, and check its name",
            ) from error
        if status is None and isinstance(cause, httpx.TransportError):
            raise FetchError(
                "the hub cannot be reached",
                where=where,
                why=f"{shown(hub.endpoint())}: {type(cause).__name__}",
                fix="check the network and HF_ENDPOINT, then try again; what has arrived is not sent again",
            ) from error
        why = f"it answered {status}" if status is not None else type(cause).__name__
        if isinstance(cause, ValueError) and str(cause).startswith("Invalid metadata"):
            # The hub's own words about the model card.
            why = str(cause)[:300]
        raise FetchError(
            "publishing to the hub failed",
            where=where,
            why=why,
            fix="publish again; what has arrived is not sent again",
        ) from error


def _changed_meanwhile(where: str) -> FetchError:
    return FetchError("somebody else published here meanwhile", where=where, fix="publish again")
