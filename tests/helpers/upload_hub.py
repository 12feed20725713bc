"""A hub on loopback that takes uploads by the plain protocol (preupload, LFS batch with basic and multipart transfers, commit),
keeps what it is given, and records every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.hub_server import git_sha1
from tests.helpers.loopback import Handler, serving

ROOT_COMMIT = "0" * 39 + "1"


@dataclass
class Branch:
    """A branch: its commit, the content of its files, and which of them are large."""

    commit: str = ROOT_COMMIT
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)


@dataclass
class Repo:
    private: bool = False
    branches: dict[str, Branch] = field(default_factory=lambda: {"main": Branch(files={".gitattributes": b"* lfs\n"})})


@dataclass
class Request:
    """A request as it arrived, and how many bytes its body has."""

    method: str
    path: str
    size: int
    token: str | None


@dataclass
class UploadHub:
    """The running hub.  Files of more than `large` bytes are LFS objects; those of more than `part` bytes come in parts."""

    url: str = ""
    token: str = "hf_right"
    large: int = 60
    part: int = 1000
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    """The objects in the order in which they were complete, each time that they were sent."""
    before: Callable[[int], bool] = lambda _number: True
    """Called with the number of each request before its body is read; False drops the connection."""
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Statuses and bodies of requests whose path has a text in it, instead of the right ones."""
    once: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """The same for the first such request alone."""


class _Handler(Handler):
    disable_nagle_algorithm, wbufsize = True, -1
    hub: UploadHub

    def handle_one(self) -> None:
        hub, path = self.hub, urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        size = int(self.headers.get("Content-Length") or 0)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        hub.requests.append(Request(self.command, path, size, token))
        if not hub.before(len(hub.requests)):
            self.close_connection = True
            return
        body = (
            self.rfile.read(size) if "chunked" not in (self.headers.get("Transfer-Encoding") or "") else self._chunks()
        )
        once = next((text for text in hub.once if text in path), None)
        if once is not None:
            self.reply(*hub.once.pop(once))
            return
        for text, answer in hub.answers.items():
            if text in path:
                self.reply(*answer)
                return
        for method, pattern, action in _ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                if not path.startswith(("/storage/", "/complete/")) and token != hub.token:
                    # Without a token a hub does not say whether a repository is missing or private.
                    code = {"X-Error-Code": "RepoNotFound"} if token is None else {}
                    said = {"X-Error-Message": "Invalid credentials in Authorization header"} if token else {}
                    self.reply(401, b"{}", {**code, **said})
                    return
                action(self, body, *found.groups())
                return
        self.reply(404, b"{}")

    do_GET = do_POST = do_PUT = handle_one

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self.reply(404, b"{}", {"X-Error-Code": code})

    def _create(self, body: bytes) -> None:
        wish = json.loads(body)
        name = f"{wish['organization']}/{wish['name']}"
        if name in self.hub.repos:
            self.reply(409, json.dumps({"url": f"{self.hub.url}/{name}"}).encode())
            return
        self.hub.repos[name] = Repo(wish.get("visibility") == "private")
        self._json({"url": f"{self.hub.url}/{name}"})

    def _branch(self, _body: bytes, name: str, branch: str) -> None:
        repo = self.hub.repos[name]
        main = repo.branches["main"]
        repo.branches[branch] = Branch(main.commit, dict(main.files), set(main.large))
        self._json({})

    def _info(self, _body: bytes, name: str, revision: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._missing("RepoNotFound")
        elif revision not in repo.branches:
            self._missing("RevisionNotFound")
        else:
            branch = repo.branches[revision]
            siblings = []
            for path, data in sorted(branch.files.items()):
                lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                about = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}
                siblings.append({**about, "lfs": lfs} if path in branch.large else about)
            self._json({"id": name, "sha": branch.commit, "private": repo.private, "siblings": siblings})

    def _preupload(self, body: bytes, _name: str, _revision: str) -> None:
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["size"] > self.hub.large and one["path"] != "README.md" else "regular",
                "shouldIgnore": False,
            }
            for one in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, body: bytes, _name: str) -> None:
        objects = []
        for one in json.loads(body)["objects"]:
            oid, size, url = one["oid"], one["size"], f"{self.hub.url}/storage/{one['oid']}"
            if oid in self.hub.objects:
                objects.append({"oid": oid, "size": size})
                continue
            verify = {"href": f"{self.hub.url}/verify", "header": {}}
            upload: dict[str, Any] = {"href": f"{url}?X-Amz-Signature=signature", "header": {}}
            if size > self.hub.part:
                self.hub.parts[oid] = {}
                count = -(-size // self.hub.part)
                header = {str(n): f"{url}/{n}?X-Amz-Signature=signature" for n in range(1, count + 1)}
                upload = {
                    "href": f"{self.hub.url}/complete/{oid}",
                    "header": {"chunk_size": str(self.hub.part), **header},
                }
            objects.append({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self.reply(400)
            return
        self.hub.objects[oid] = body
        self.hub.stored.append(oid)
        self.reply(200, b"", {"ETag": '"x"'})

    def _part(self, body: bytes, oid: str, number: str) -> None:
        self.hub.parts[oid][int(number)] = body
        self.reply(200, b"", {"ETag": f'"{number}"'})

    def _complete(self, body: bytes, oid: str) -> None:
        told = json.loads(body)
        assert [one["partNumber"] for one in told["parts"]] == list(range(1, len(told["parts"]) + 1))
        self._store(b"".join(data for _, data in sorted(self.hub.parts.pop(oid).items())), oid)

    def _verify(self, body: bytes) -> None:
        told = json.loads(body)
        right = len(self.hub.objects.get(told["oid"], b"")) == told["size"]
        self.reply(200 if right else 404)

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        branch = self.hub.repos[name].branches[revision]
        header, *operations = (json.loads(line) for line in body.splitlines())
        if header["value"].get("parentCommit") not in (None, branch.commit):
            self.reply(412)
            return
        for one in operations:
            value = one["value"]
            if one["key"] == "deletedFile":
                del branch.files[value["path"]]
                branch.large.discard(value["path"])
            elif one["key"] == "file":
                branch.files[value["path"]] = base64.b64decode(value["content"])
                branch.large.discard(value["path"])
            else:
                branch.files[value["path"]] = self.hub.objects[value["oid"]]
                branch.large.add(value["path"])
        branch.messages.append(header["value"]["summary"])
        branch.commit = hashlib.sha1(branch.commit.encode() + body).hexdigest()
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{branch.commit}", "commitOid": branch.commit})

    def _file(self, _body: bytes, name: str, commit: str, path: str) -> None:
        branch = next((one for one in self.hub.repos[name].branches.values() if one.commit == commit), None)
        if branch is None or path not in branch.files:
            self._missing("EntryNotFound")
        else:
            self.reply(200, branch.files[path])

    def _yaml(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        errors = [{"message": "license is none"}] if 'license: "wrong"' in content else []
        self.reply(400 if errors else 200, json.dumps({"warnings": [], "errors": errors}).encode())


_NAME = r"([^/]+/[^/]+?)"
_ROUTES: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/validate-yaml", _Handler._yaml),
    ("GET", f"/api/models/{_NAME}/revision/(.+)", _Handler._info),
    ("POST", f"/api/models/{_NAME}/branch/(.+)", _Handler._branch),
    ("POST", f"/api/models/{_NAME}/preupload/(.+)", _Handler._preupload),
    ("POST", f"/api/models/{_NAME}/commit/(.+)", _Handler._commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", "/storage/([0-9a-f]{64})", _Handler._store),
    ("PUT", "/storage/([0-9a-f]{64})/([0-9]+)", _Handler._part),
    ("POST", "/complete/([0-9a-f]{64})", _Handler._complete),
    ("POST", "/verify", _Handler._verify),
    ("GET", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._file),
)


@contextmanager
def running_upload_hub() -> Iterator[UploadHub]:
    """Run the hub until the block ends."""
    hub = UploadHub()
    with serving(type("Handler", (_Handler,), {"hub": hub})) as hub.url:
        yield hub
