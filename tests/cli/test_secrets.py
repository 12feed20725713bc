"""The query of a URL may hold a signature: the manifest is the only place that has it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmbuild.manifest.lock import read_lock
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, Result
from tests.helpers.loopback import FileHandler, serving

SECRET = "9a0b364bb6c75f0e3d2a"
QUERY = f"X-Amz-Date=20300101T000000Z&X-Amz-Signature={SECRET}"
MODEL = ("quantize", "config")


@dataclass
class Signed:
    """A server that gives a checkpoint to whoever has the signature."""

    archive: bytes
    url: str = ""
    queries: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.archive).hexdigest()


class _Handler(FileHandler):
    def __init__(self, signed: Signed, *rest: Any) -> None:
        self.signed = signed
        super().__init__({}, *rest)

    def do_GET(self) -> None:
        query = urlsplit(self.path).query
        self.signed.queries.append(query)
        right = SECRET in query
        self.answer(200 if right else 403, self.signed.archive if right else b"", "application/gzip")


@pytest.fixture(scope="module")
def signed() -> Iterator[Signed]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for path in sorted(cached_checkpoint("llama").iterdir()):
            file.add(path, path.name)
    server = Signed(out.getvalue())
    with serving(partial(_Handler, server)) as server.url:
        yield server


def manifest(signed: Signed, query: str = QUERY) -> str:
    source = f'source = "{signed.url}/tiny.tar.gz?{query}"\nsha256 = "{signed.sha256}"'
    text = TINY_MANIFEST.replace('source = "checkpoint"', source)
    return text.replace("[project]\n", "[project]\nprovenance = true\n")


@pytest.fixture
def project(signed: Signed, tmp_path: Path) -> ProjectDir:
    (tmp_path / "project").mkdir()
    made = ProjectDir(tmp_path / "project", tmp_path / "store")
    made.write(manifest(signed))
    signed.queries.clear()
    return made


def ok(project: ProjectDir, *arguments: str) -> Result:
    result = project.run(*arguments, env={"NO_PROXY": "*"})
    assert result.code == 0, result.text
    return result


def holders(root: Path) -> list[str]:
    """The files below a directory, members of archives included, in whose name or content the signature is."""
    found = []
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        contents = [path.read_bytes()]
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                contents += [member.read() for one in archive if (member := archive.extractfile(one))]
        if SECRET in path.name or any(SECRET.encode() in content for content in contents):
            found.append(str(path.relative_to(root)))
    return found


def test_a_signature_is_in_the_manifest_and_nowhere_else(project: ProjectDir, signed: Signed, tmp_path: Path) -> None:
    said = [ok(project, "plan", "--json").text, ok(project, "build", *MODEL, "--events", "events.ndjson").text]
    said += [ok(project, "lock").text, ok(project, "why", "config").text, ok(project, "plan", "--locked").text]
    ok(project, "cache", "export", "cache.tar")
    # The first plan asks how much there is to download.
    assert signed.queries == [QUERY, QUERY]
    assert holders(tmp_path) == ["project/buildfile.toml"]
    assert not any(SECRET in text for text in said)
    digest = hashlib.sha256(QUERY.encode()).hexdigest()
    for path in ("llmbuild.lock", "dist/provenance/tiny-q4f32_1-MLC.intoto.json"):
        assert f"{signed.url}/tiny.tar.gz?query-sha256={digest}" in (project.root / path).read_text()

    # Another signature gives the same bytes, and what is built stays as it is.
    project.write(manifest(signed, f"{QUERY}00"))
    assert "cached   fetch[tiny]" in ok(project, "plan").out
    assert project.build(*MODEL) == {}
    assert signed.queries == [QUERY, QUERY]
    assert len([key for key in read_lock(project.root / "llmbuild.lock").sources if key.startswith("http")]) == 2
    ok(project, "lock")
    assert list(read_lock(project.root / "llmbuild.lock").sources) == [
        f"{signed.url}/tiny.tar.gz?query-sha256={hashlib.sha256(f'{QUERY}00'.encode()).hexdigest()}"
    ]


def test_a_recorded_fetch_without_its_manifest(project: ProjectDir, signed: Signed) -> None:
    ok(project, "build", "fetch")
    (action,) = [path for path in (project.store / "actions").rglob("*.json") if b'"kind":"fetch"' in path.read_bytes()]
    digest = action.parent.name + action.stem
    for one in (project.store / "blobs").rglob("*"):
        if one.is_file():
            one.unlink()
    ok(project, "exec", digest)
    assert signed.queries == [QUERY] * 2
    for one in (project.store / "blobs").rglob("*"):
        if one.is_file():
            one.unlink()
    (project.root / "buildfile.toml").unlink()
    result = project.run("exec", digest)
    assert result.code == 4
    assert "the query of the URL is not known" in result.err
    assert "run `llmbuild build` with the manifest" in result.err


def test_a_lock_that_an_older_llmbuild_wrote(project: ProjectDir, signed: Signed) -> None:
    ok(project, "build", "fetch")
    lock = project.root / "llmbuild.lock"
    digest = hashlib.sha256(QUERY.encode()).hexdigest()
    text = lock.read_text()
    assert f"query-sha256={digest}" in text
    for arguments in (("lock",), ("plan",), ("build", "fetch")):
        lock.write_text(text.replace(f"query-sha256={digest}", QUERY))
        ok(project, "plan", "fetch", "--locked")
        assert SECRET in lock.read_text()
        ok(project, *arguments)
        assert lock.read_text().replace("\n\n[toolchain]", "").startswith(text.partition("\n\n[toolchain]")[0])
        assert holders(project.root) == ["buildfile.toml"]
    assert signed.queries == [QUERY]


def test_errors_do_not_show_a_signature(project: ProjectDir, signed: Signed) -> None:
    url = f"{signed.url}/tiny.tar.gz?{QUERY}"
    for text in (
        manifest(signed).replace(f'sha256 = "{signed.sha256}"', ""),
        manifest(signed).replace(signed.url, "http://[::1"),
        manifest(signed).replace(signed.url, "http://host.invalid"),
        manifest(signed).replace('conv-template = "chatml"', f'adapter = "{url}"'),
        manifest(signed, QUERY.replace("Signature", "Sig") + "00").replace(signed.url, f"{signed.url}/x"),
    ):
        project.write(text)
        assert SECRET not in project.run("build", "fetch").text
    long = url + "0" * 5000
    for arguments in ((long,), (long, "--sha256", "0" * 64, "-o", "new.toml")):
        result = project.run("init", *arguments)
        assert result.code == (0 if "-o" in arguments else 2), result.text
        assert SECRET not in result.text
