"""A small HTTP server on loopback that speaks a hub's API, and misbehaves on demand.

Two servers run: the hub, which redirects large files, and a second one on another port (another origin) that serves
their bytes, as the real hub's content network does.  Every request is recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.loopback import Handler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """One model: its files, which of them are large (kept in LFS), and which revisions name its commit."""

    files: dict[str, bytes]
    large: set[str] = field(default_factory=set)
    revisions: set[str] = field(default_factory=lambda: {"main", COMMIT})
    commit: str = COMMIT
    gated: bool = False
    announced: dict[str, str] = field(default_factory=dict)
    """Digests announced instead of the right ones, by file name ("" announces none)."""


@dataclass
class Seen:
    """One request as it arrived."""

    server: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Hub:
    """What a test sees of the running servers, and how it makes them fail."""

    url: str
    other: str
    repos: dict[str, Repo] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    failures: list[tuple[str, Any]] = field(default_factory=list)
    """Failures to come, used up one by one for requests of file bytes: ("drop", bytes after which the connection is
    closed), ("status", code), ("no-range", None: the whole file is sent), ("wrong-range", None)."""
    api_failures: list[int] = field(default_factory=list)
    """Statuses with which the next requests to the API are answered."""
    retry_after: str | None = "0"
    redirect: str | None = None
    """Where large files redirect to, instead of the second server."""

    def bytes_requests(self) -> list[Seen]:
        """The requests that file bytes were answered to."""
        return [seen for seen in self.seen if seen.server == "other" or seen.path.startswith("/raw/")]


class _Handler(Handler):
    hub: Hub
    name: str

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.seen.append(Seen(self.name, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if found := re.fullmatch(r"/api/models/(.+?)/revision/(.+)", path):
            self._revision(found[1], found[2])
        elif found := re.fullmatch(r"/(?:raw/)?(.+?)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3], raw=path.startswith("/raw/"))
        else:
            self.reply(404, b"")

    def _revision(self, name: str, revision: str) -> None:
        if self.hub.api_failures:
            self.reply(self.hub.api_failures.pop(0), b"")
            return
        repo = self.hub.repos.get(name)
        if repo is None:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repo.gated and self.headers.get("Authorization") is None:
            self.reply(401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif revision not in repo.revisions:
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [self._sibling(repo, file) for file in sorted(repo.files)]
            body = {"id": name, "sha": repo.commit, "siblings": siblings}
            self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def _sibling(repo: Repo, file: str) -> dict[str, Any]:
        content, announced = repo.files[file], repo.announced.get(file)
        sibling: dict[str, Any] = {"rfilename": file, "size": len(content)}
        if announced == "":
            return sibling
        if file in repo.large:
            sha256 = announced or hashlib.sha256(content).hexdigest()
            return {**sibling, "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 134}}
        return {**sibling, "blobId": announced or git_sha1(content)}

    def _resolve(self, name: str, revision: str, file: str, raw: bool) -> None:
        repo = self.hub.repos.get(name)
        if repo is None or revision not in repo.revisions or file not in repo.files:
            self.reply(404, b"")
        elif repo.gated and self.name == "hub" and self.headers.get("Authorization") is None:
            self.reply(401, b"")
        elif file in repo.large and self.name == "hub" and not raw:
            target = self.hub.redirect or f"{self.hub.other}{self.path}?signature=secret"
            self.reply(302, b"", {"Location": target})
        else:
            self._send(repo.files[file])

    def _send(self, content: bytes) -> None:
        failure, value = self.hub.failures.pop(0) if self.hub.failures else ("", None)
        if failure == "status":
            self.reply(value, b"", {} if self.hub.retry_after is None else {"Retry-After": self.hub.retry_after})
            return
        start, status, headers = 0, 200, {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and failure != "no-range":
            start, status = int(asked[1]), 206
            if start >= len(content):
                self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            shown = start + 1 if failure == "wrong-range" else start
            headers = {"Content-Range": f"bytes {shown}-{len(content) - 1}/{len(content)}"}
        body = content[start : int(asked[2]) + 1 if asked and asked[2] else None]
        if failure == "drop":
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, text in headers.items():
                self.send_header(key, text)
            self.end_headers()
            self.wfile.write(body[:value])
            self.wfile.flush()
            self.close_connection = True
            return
        self.reply(status, body, headers)


def git_sha1(content: bytes) -> str:
    """Git's object id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run both servers until the block ends."""
    hub = Hub("", "")
    handlers = [type("Handler", (_Handler,), {"hub": hub, "name": name}) for name in ("hub", "other")]
    with serving(handlers[0]) as hub.url, serving(handlers[1]) as hub.other:
        yield hub
