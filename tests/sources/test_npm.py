"""Packages of npm, from a registry on loopback that answers as the public one does."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine.kind import no_progress
from llmbuild.errors import FetchError, LlmbuildError, UsageError
from llmbuild.manifest.lock import Lock, parse_lock
from llmbuild.manifest.source import parse_source
from llmbuild.sources import lock_key, npm, npmrc, observe
from llmbuild.sources.kind import Source, SourceError
from llmbuild.sources.kinds import source_kind
from llmbuild.sources.remote import AnnouncedKind, Download
from llmbuild.sources.shape import ShapeError
from tests.helpers.fetching import Digests, fetch_source
from tests.helpers.npm_registry import Registry, running_registry, sri, tarball

MODULE = b"export const answer = 42;\n"
FILES = {
    "package/package.json": b'{"name": "@tiny/page", "main": "./lib/index.js"}',
    "package/lib/index.js": MODULE,
    "package/lib/index.d.ts": b"export declare const answer: number;",
    "package/LICENSE": b"Do as you like.",
}
SOURCE = Source("npm", {"package": "@tiny/page", "version": "1.2.3"})
KEY = "npm:@tiny/page==1.2.3"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own npm."""
    for name in list(os.environ):
        if name.lower().startswith("npm_config_"):
            monkeypatch.delenv(name)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with running_registry(tarball(FILES)) as registry:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry.url + "/")
        yield registry


def settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / ".npmrc").write_text(text)


def test_the_module_and_its_license(tmp_path: Path, registry: Registry) -> None:
    lock = Lock()
    fetched = fetch_source(SOURCE, tmp_path, lock=lock)
    assert fetched.files == {"index.js": MODULE, "LICENSE": b"Do as you like."}
    integrity = sri(registry.archive)
    assert fetched.params["source"] == {
        "kind": "npm",
        "package": "@tiny/page",
        "version": "1.2.3",
        "integrity": integrity,
    }
    assert lock.get(KEY) == {"integrity": integrity}
    assert source_kind("npm").uri(fetched.params["source"], {}) == "pkg:npm/%40tiny/page@1.2.3"
    # The name's slash is part of the name, and not of the path.
    assert [path for path, _ in registry.seen] == ["/npm/@tiny%2Fpage"] * 2 + ["/npm/-/page.tgz"]


def test_what_is_locked_needs_no_registry_to_be_planned_or_taken_from_the_store(
    tmp_path: Path, registry: Registry
) -> None:
    files = {"index.js": MODULE, "LICENSE": b"Do as you like."}
    pinned = {name: {"sha256": digest_bytes(data), "size": len(data)} for name, data in files.items()}
    lock = Lock({KEY: {"integrity": sri(registry.archive), "files": pinned}})
    assert parse_lock(Path("llmbuild.lock"), lock.to_toml()).get(KEY) == lock.get(KEY)
    store = tmp_path / "store"
    for data in files.values():
        blob = store / digest_bytes(data)[:2] / digest_bytes(data)[2:]
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
    assert fetch_source(SOURCE, tmp_path, lock=lock, offline=True, have=store).files == files
    assert registry.seen == []
    # Downloaded, it is held against the same promises.
    assert fetch_source(SOURCE, tmp_path, lock=lock, name="again").files == files
    wrong = {**pinned, "index.js": {"sha256": "0" * 64, "size": len(MODULE)}}
    edited = Lock({KEY: {"integrity": sri(registry.archive), "files": wrong}})
    with pytest.raises(FetchError, match="is not what was locked"):
        fetch_source(SOURCE, tmp_path, lock=edited, name="edited")
    assert list((tmp_path / "edited").iterdir()) == []


def test_offline(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(FetchError, match="is not pinned"):
        fetch_source(SOURCE, tmp_path, offline=True)
    locked = Lock({KEY: {"integrity": sri(registry.archive)}})
    with pytest.raises(FetchError, match="--offline forbids"):
        fetch_source(SOURCE, tmp_path, lock=locked, offline=True, name="locked")
    assert registry.seen == []


def test_the_complete_pin(tmp_path: Path, registry: Registry) -> None:
    kind = source_kind("npm")
    assert isinstance(kind, AnnouncedKind)
    params, _ = observe(SOURCE, tmp_path, Digests(), Lock())
    source: Any = params["source"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    what = Download(source, {}, {"integrity": source["integrity"]}, None, tmp_path, scratch, scratch, no_progress)
    pin = kind.complete_pin(what, lambda path: (digest_bytes(path.read_bytes()), path.stat().st_size))
    assert pin["integrity"] == sri(registry.archive)
    assert {"index.js", "LICENSE"} == set(pin["files"])  # type: ignore[arg-type]
    fetched = {name: (entry["sha256"], entry["size"]) for name, entry in pin["files"].items()}  # type: ignore[union-attr, index, call-overload]
    assert kind.fetched_pin(SOURCE.spec, params, None, fetched) == pin


def test_another_archive_than_the_promised_one(tmp_path: Path, registry: Registry) -> None:
    lock = Lock({KEY: {"integrity": sri(registry.archive)}})
    registry.dist = {"integrity": sri(registry.archive)}
    registry.archive = tarball({**FILES, "package/lib/index.js": b"evil()"})
    with pytest.raises(FetchError, match="what was downloaded is not what was promised"):
        fetch_source(SOURCE, tmp_path, lock=lock)
    assert list((tmp_path / "out").iterdir()) == []
    # The registry itself announces the other one now.
    registry.dist = {}
    with pytest.raises(FetchError, match="is not what was locked"):
        fetch_source(SOURCE, tmp_path, lock=lock, name="other")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**FILES, "package/../../evil": b""}, "unsafe name"),
        ({"package/lib/index.js": MODULE}, "has no package.json"),
        ({**FILES, "package/package.json": b'{"main": "../../etc/passwd"}'}, "leads out of its directory"),
        ({**FILES, "package/package.json": b"[]"}, "names no module"),
        ({**FILES, "package/package.json": b'{"main": "lib/index.mjs"}'}, "did you mean 'lib/index.js'"),
    ],
)
def test_archives_that_cannot_be_used(
    tmp_path: Path, registry: Registry, files: Mapping[str, bytes], said: str
) -> None:
    registry.archive = tarball(files)
    with pytest.raises(FetchError) as caught:
        fetch_source(SOURCE, tmp_path)
    assert said in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_archive(tmp_path: Path, registry: Registry) -> None:
    registry.archive = registry.archive[:80]
    with pytest.raises(FetchError, match="the archive"):
        fetch_source(SOURCE, tmp_path)


def test_a_file_larger_than_any_module(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm, "_MOST_FILE", 10)
    with pytest.raises(FetchError, match="too large"):
        fetch_source(SOURCE, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dist": {"integrity": "sha1-AAAA"}}, "announces no SHA-512"),
        ({"dist": {"tarball": "http://other.invalid/x.tgz"}}, "only https is fetched"),
        ({"dist": {"tarball": 5}}, "it names no archive"),
        ({"body": b"<html>"}, "is not understood"),
        ({"body": b"[]"}, "it has no versions"),
        ({"body": b'{"versions": {"1.2.4": {}, "1.0.0": {}}}'}, "it has 1.2.4 and 1.0.0"),
        ({"body": b'{"versions": {"1": {}, "2": {}, "3": {}, "4": {}, "5": {}}}'}, "it has 3, 4, 5 and 2 others"),
        ({"token": "Bearer secret"}, "the registry refuses"),
    ],
)
def test_answers_that_are_no_help(tmp_path: Path, registry: Registry, change: dict[str, Any], said: str) -> None:
    for name, value in change.items():
        setattr(registry, name, value)
    with pytest.raises(FetchError) as caught:
        fetch_source(SOURCE, tmp_path)
    assert said in str(caught.value)


def test_a_package_that_the_registry_does_not_have(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(FetchError, match="no such package"):
        fetch_source(Source("npm", {"package": "nothing", "version": "1.0.0"}), tmp_path)


def test_a_registry_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="the registry cannot be reached"):
        fetch_source(SOURCE, tmp_path)


@pytest.mark.parametrize("scoped", [True, False])
def test_the_registry_of_npmrc_gets_the_token_and_nobody_else(tmp_path: Path, scoped: bool, monkeypatch: Any) -> None:
    monkeypatch.setenv("TINY_TOKEN", "s3cret")
    with running_registry(tarball(FILES)) as first, running_registry(tarball(FILES)) as other:
        first.token = "Bearer s3cret"
        first.dist = {"tarball": f"{other.url}/-/page.tgz"}
        host = first.url.partition(":")[2].removesuffix("/npm")
        lines = [f"{'@tiny:' if scoped else ''}registry = {first.url}/", f"{host}/:_authToken=${{TINY_TOKEN}}"]
        settings(tmp_path, "; npm's settings\n" + "\n".join(lines) + "\n")
        assert fetch_source(SOURCE, tmp_path).files["index.js"] == MODULE
        assert {token for _, token in first.seen} == {"Bearer s3cret"}
        assert [token for _, token in other.seen] == [None]
        first.token = "Bearer another"
        with pytest.raises(LlmbuildError) as caught:
            fetch_source(SOURCE, tmp_path, name="refused")
    assert "s3cret" not in str(caught.value)


def test_a_mirror_that_passes_on_the_public_answer(tmp_path: Path, registry: Registry) -> None:
    registry.dist = {"tarball": f"{npmrc.PUBLIC}/-/page.tgz"}
    assert fetch_source(SOURCE, tmp_path).files["index.js"] == MODULE


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("registry=https://me:s3cret@host/npm", UsageError, "a token belongs into .npmrc"),
        ("registry=ftp://host", UsageError, "is not the address of a registry"),
        ("registry=https://[host", UsageError, "is not the address of a registry"),
        ("registry=http://registry.invalid", FetchError, "only https is asked"),
        ("registry=https://host\n//host/:_authToken=two words", UsageError, "cannot be a token"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, text: str, error: type[LlmbuildError], said: str) -> None:
    settings(tmp_path, text)
    with pytest.raises(error) as caught:
        fetch_source(SOURCE, tmp_path)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_where_settings_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert npmrc.registry_of("left-pad") == npmrc.Registry(npmrc.PUBLIC, {})
    (tmp_path / "global").write_text("registry=https://global\n@one:registry=https://one/npm\n//one/:_auth=dG9rZW4=\n")
    monkeypatch.setenv("npm_config_globalconfig", str(tmp_path / "global"))
    assert npmrc.registry_of("left-pad").url == "https://global"
    settings(tmp_path, "#registry=https://x\nregistry='https://user/'\n")
    assert npmrc.registry_of("left-pad").url == "https://user"
    assert npmrc.registry_of("@one/x") == npmrc.Registry("https://one/npm", {"Authorization": "Basic dG9rZW4="})
    monkeypatch.setenv("npm_config_registry", "https://environment")
    assert npmrc.registry_of("left-pad").url == "https://environment"
    assert npmrc.registry_of("@one/x").url == "https://one/npm"
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(tmp_path))
    with pytest.raises(UsageError, match="npm's settings cannot be read"):
        npmrc.registry_of("left-pad")


@pytest.mark.parametrize(
    "text",
    [
        "npm:x",
        "npm:x==",
        "npm:x==1.2",
        "npm:x==^1.2.3",
        "npm:x==latest",
        "npm:@a/b/c==1.2.3",
        "npm:../x==1.2.3",
        "npm:",
    ],
)
def test_what_names_no_version(text: str) -> None:
    with pytest.raises(SourceError, match="does not name a package and an exact version"):
        source_kind("npm").parse(text, None, None)


def test_a_model_cannot_come_from_npm() -> None:
    assert source_kind("npm").parse("npm:@mlc-ai/web-llm==0.2.86", None, None) == Source(
        "npm", {"package": "@mlc-ai/web-llm", "version": "0.2.86"}
    )
    with pytest.raises(SourceError) as caught:
        parse_source("npm:@mlc-ai/web-llm==0.2.86")
    assert parse_source("npm:x==1.2.3", of_package=True).kind == "npm"
    assert "names no model" in caught.value.what
    assert "npm:" not in str(caught.value.fix)


def test_a_record_with_other_values() -> None:
    identity = {"package": "@tiny/page", "version": "1.2.3", "integrity": sri(b"")}
    kind = source_kind("npm")
    kind.check({"source": identity}, {})
    for name, value in (("package", "../x"), ("version", "1"), ("integrity", "sha512-x")):
        with pytest.raises(ShapeError, match=name):
            kind.check({"source": {**identity, name: value}}, {})
    with pytest.raises(UsageError, match="must be 'sha512-'"):
        parse_lock(Path("llmbuild.lock"), f'version = 1\n[sources."{KEY}"]\nintegrity = "sha1-x"\n')
    assert lock_key(SOURCE) == KEY


def _reachable() -> bool:
    try:
        with urllib.request.urlopen(f"{npmrc.PUBLIC}/-/ping", timeout=3):
            return True
    except OSError:
        return False


def test_the_public_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not _reachable():
        pytest.skip("needs the public registry of npm")
    # The smallest package that everybody knows.
    fetched = fetch_source(Source("npm", {"package": "isarray", "version": "2.0.5"}), tmp_path)
    assert set(fetched.files) == {"index.js", "LICENSE"}
    assert fetched.params["source"]["integrity"].startswith("sha512-xHjhDr3cNBK0BzdUJSPXZntQUx/mwMS5Rw4A7lPJ90XGAO6I")
