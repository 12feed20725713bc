"""The lock file as users meet it: processes on a tiny model that a hub, a wheel or a directory holds."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuild.canonical import canonical_json
from llmbuild.engine.seal import Seal
from llmbuild.engine.store import Store
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.engine.verified import stamp_of
from llmbuild.errors import UsageError
from llmbuild.manifest.lock import read_lock
from llmbuild.workspace import locking
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, Result, read_events
from tests.helpers.hub_server import COMMIT, Hub, Repo, running_hub
from tests.helpers.raw_server import raw_server, response
from tests.sources.test_pypi import make_wheel

ROOT = Path(__file__).parent.parent.parent
MOVED = "f" * 40
MANIFEST = """\
[project]
name = "tiny"

[models.tiny]
source = "SOURCE"
conv-template = "chatml"

[metadata]
context-window-size = 64

[[build]]
models = ["tiny"]
quantizations = ["q4f32_1"]
platforms = ["x86_64-linux-cpu"]
"""
KEY = "hf:org/tiny@main"


@dataclass(frozen=True)
class Place(ProjectDir):
    """A project whose processes see the test's hub and wheels, and no other network or user."""

    env: dict[str, str] = field(default_factory=dict)

    def llmbuild(self, *arguments: str, **env: str) -> Result:
        return self.run(*arguments, env={**self.env, **env})

    def ok(self, *arguments: str, **env: str) -> Result:
        result = self.llmbuild(*arguments, **env)
        assert result.code == 0, result.text
        return result

    @property
    def lock(self) -> Path:
        return self.root / "llmbuild.lock"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cached_checkpoint("llama").iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "project"
    root.mkdir()
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "")
    env = {**proxies, "HOME": str(tmp_path / "home"), "HF_TOKEN": "", "HF_HUB_OFFLINE": "", "NO_PROXY": "*"}
    env |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}
    env |= {"PIP_INDEX_URL": "", "PIP_EXTRA_INDEX_URL": "", "HF_ENDPOINT": "http://127.0.0.1:9", "COLUMNS": "80"}
    made = Place(root, tmp_path / "store", env)
    made.write(MANIFEST.replace("SOURCE", "hf:org/tiny"))
    return made


@pytest.fixture
def hub(place: Place, files: dict[str, bytes]) -> Iterator[Hub]:
    with running_hub() as hub:
        hub.repos["org/tiny"] = Repo(dict(files), large={"model.safetensors"})
        place.env["HF_ENDPOINT"] = hub.url
        yield hub


def names(hub: Hub) -> list[str]:
    """The files that the hub was asked for, and what of its API."""
    return [seen.path.rpartition("/")[2] for seen in hub.seen if seen.server == "hub"]


def test_lock_pins_every_file_without_the_weights(place: Place, hub: Hub, files: dict[str, bytes]) -> None:
    done = place.ok("lock")
    size = sum(map(len, files.values()))
    assert done.out.splitlines()[:2] == [
        "llmbuild.lock written: 11 changes",
        f"  + hf:org/tiny@main (tiny): not in the lock (commit {COMMIT[:12]}, {len(files)} files, {size / 1e6:.1f}",
    ], done.out
    pins = read_lock(place.lock).sources[KEY]["files"]
    assert {name: (entry["sha256"], entry["size"]) for name, entry in pins.items()} == {
        name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()
    }
    assert size == sum(entry["size"] for entry in pins.values())
    assert "model.safetensors" not in names(hub)

    hub.seen.clear()
    text = place.lock.read_text()
    assert place.ok("lock").out == "llmbuild.lock is up to date: 1 source, 10 tools\n"
    assert place.ok("lock", "--check", "--offline").out == "llmbuild.lock is up to date: 1 source, 10 tools\n"
    assert hub.seen == [] and place.lock.read_text() == text

    # The build asks for the weights alone: the small files are in the store since they were locked.
    assert place.build("config", env=place.env) == {"fetch": 1, "inspect": 1, "config": 1}
    assert names(hub) == ["model.safetensors"]
    assert place.lock.read_text() == text


def test_a_build_completes_the_lock_and_then_leaves_it_alone(place: Place, hub: Hub) -> None:
    place.ok("build", "config")
    lock = read_lock(place.lock)
    assert lock.sources[KEY]["commit"] == COMMIT
    assert all(
        {"git-sha1", "sha256", "size"} >= set(entry) >= {"sha256", "size"}
        for entry in lock.sources[KEY]["files"].values()
    )
    assert {"python", "llmbuild", "apache-tvm", "linker x86_64-linux-cpu"} <= set(lock.toolchain)
    assert "+sha256." in lock.toolchain["apache-tvm"]
    assert str(place.root) not in place.lock.read_text()
    before, _ = place.lock.stat(), hub.seen.clear()
    for arguments in (("build", "config"), ("build", "config", "--locked"), ("plan", "config", "--locked")):
        place.ok(*arguments)
    after = place.lock.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert hub.seen == []


def test_a_check_takes_the_stored_files_unless_a_fetch_is_named(place: Place, hub: Hub) -> None:
    place.ok("build", "config")
    for asked in ("config", "fetch"):
        hub.seen.clear()
        place.ok("build", "--check", asked, "--events", "events")
        checked = [event["label"] for event in read_events(place.root / "events") if event["type"] == "checked"]
        assert [label.split("[")[0] for label in checked] == [asked]
        assert bool(hub.seen) is (asked == "fetch")


def test_a_revision_that_moved(place: Place, hub: Hub) -> None:
    place.ok("build", "config")
    repo = hub.repos["org/tiny"]
    repo.revisions, repo.commit = {"main", COMMIT, MOVED}, MOVED
    repo.files["tokenizer.json"] += b" "
    hub.seen.clear()
    place.ok("build", "config", "--locked")
    assert hub.seen == []

    text = place.lock.read_text()
    check = place.llmbuild("lock", "--upgrade", "--check")
    assert check.code == 1 and place.lock.read_text() == text
    assert check.out.startswith("llmbuild.lock is not up to date: 2 differences\n")
    assert f"  ~ hf:org/tiny@main (tiny): commit {COMMIT[:12]} -> {MOVED[:12]}\n" in check.out
    assert "  ~ hf:org/tiny@main: tokenizer.json: git-sha1 " in check.out

    upgrade = place.ok("lock", "--upgrade", "tiny")
    assert upgrade.out.startswith("llmbuild.lock updated: 2 changes\n")
    assert "  ~ hf:org/tiny@main: tokenizer.json: sha256 " in upgrade.out
    assert read_lock(place.lock).sources[KEY]["commit"] == MOVED
    hub.seen.clear()
    assert place.build("config", "--locked", env=place.env) == {"fetch": 1, "config": 1}
    assert names(hub) == []  # Only the tokenizer is new, and it came with the lock.


def test_locked_refuses_what_is_not_in_the_lock(place: Place, hub: Hub) -> None:
    done = place.llmbuild("build", "--locked", COLUMNS="120")
    assert done.code == 2 and not place.lock.exists() and hub.seen == []
    assert done.err.startswith(
        "error: llmbuild.lock: there is no lock file, and --locked forbids to write it\n"
        "  why: + hf:org/tiny@main (tiny): not in the lock\n"
        "       + toolchain: apache-tvm: not in the lock (0."
    )
    place.ok("lock")
    text = place.lock.read_text()
    place.write(MANIFEST.replace("SOURCE", "hf:org/tiny@v2"))
    done = place.llmbuild("plan", "--locked")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: llmbuild.lock: the lock file is not up to date, and --locked forbids to\n"
        "  change it\n"
        "  why: + hf:org/tiny@v2 (tiny): not in the lock\n"
        "  fix: run `llmbuild lock` and commit llmbuild.lock\n"
    )
    wide = place.llmbuild("plan", "--locked", COLUMNS="120")
    assert wide.err.startswith(
        "error: llmbuild.lock: the lock file is not up to date, and --locked forbids to change it\n  why: + hf:"
    )
    assert place.lock.read_text() == text


def test_locked_names_a_changed_local_file_and_tool(place: Place, files: dict[str, bytes]) -> None:
    shutil.copytree(cached_checkpoint("llama"), place.root / "checkpoint")
    place.write(MANIFEST.replace("SOURCE", "checkpoint"))
    assert place.ok("lock").out.startswith(
        "llmbuild.lock written: 11 changes\n  + path:checkpoint (tiny): not in the lock ("
    )
    old = files["generation_config.json"]
    (place.root / "checkpoint/generation_config.json").write_bytes(b"{}")
    (place.root / "checkpoint/merges.txt").write_bytes(b"")
    place.lock.write_text(
        place.lock.read_text()
        .replace('python = "', 'python = "2.7.')
        .replace('"config.json" = {', '"gone.json" = { sha256 = "' + "0" * 64 + '", size = 1 }\n"config.json" = {')
    )
    text = place.lock.read_text()
    version = ".".join(map(str, sys.version_info[:3]))
    digests = [hashlib.sha256(content).hexdigest()[:12] for content in (old, b"{}")]
    done = place.llmbuild("build", "--locked", COLUMNS="120")
    assert done.code == 2
    assert done.err == (
        "error: llmbuild.lock: the lock file is not up to date, and --locked forbids to change it\n"
        f"  why: ~ path:checkpoint: generation_config.json: sha256 {digests[0]} -> {digests[1]}, "
        f"size {len(old)} -> 2 bytes\n"
        "       - path:checkpoint: gone.json: only in the lock\n"
        "       + path:checkpoint: merges.txt: not in the lock\n"
        f"       ~ toolchain: python: 2.7.{version} -> {version}\n"
        "  fix: run `llmbuild lock` and commit llmbuild.lock\n"
    )
    check = place.llmbuild("lock", "--check")
    assert check.code == 1 and place.lock.read_text() == text
    assert check.out == (
        "llmbuild.lock is not up to date: 4 differences\n"
        f"  ~ path:checkpoint: generation_config.json: sha256 {digests[0]} ->\n"
        f"      {digests[1]}, size {len(old)} -> 2 bytes\n"
        "  - path:checkpoint: gone.json: only in the lock\n"
        "  + path:checkpoint: merges.txt: not in the lock\n"
        f"  ~ toolchain: python: 2.7.{version} -> {version}\n"
    )
    place.ok("build", "config")  # A local directory is what it is: a build records it.
    assert set(read_lock(place.lock).sources["path:checkpoint"]["files"]) == {*files, "merges.txt"}
    assert read_lock(place.lock).toolchain["python"].startswith("2.7.")
    assert (
        place.ok("lock").out == f"llmbuild.lock updated: 1 change\n  ~ toolchain: python: 2.7.{version} -> {version}\n"
    )
    place.ok("build", "config", "--locked")


def test_offline_asks_nobody(place: Place, hub: Hub) -> None:
    done = place.llmbuild("build", "--offline", "config")
    assert done.code == 4 and "the revision 'main' is not pinned" in " ".join(done.err.split())
    place.ok("plan")  # Resolves the revision, and pins it.
    hub.seen.clear()
    done = place.llmbuild("build", "--offline", "config")
    assert (done.code, done.out) == (4, "")
    assert done.err == (
        "error: fetch[tiny]: hf:org/tiny@main: has to be downloaded, and --offline\n"
        "  forbids it\n"
        "  why: its files are not in the cache\n"
        "  fix: run `llmbuild build 'fetch[tiny]'` once with a network, or import a cache\n"
        "       that has it\n"
    )
    for arguments in (("plan", "--offline", "config"), ("build", "--dry-run", "--offline", "config")):
        planned = place.llmbuild(*arguments)
        assert (planned.code, planned.out, planned.err) == (4, "", done.err)
    going = place.llmbuild("build", "--offline", "--keep-going", "config")
    assert going.code == 4 and "--offline" in going.err and "failed after" in going.err
    assert hub.seen == []
    place.ok("build", "fetch")
    hub.seen.clear()
    assert place.build("--offline", "config", env=place.env) == {"inspect": 1, "config": 1}
    place.ok("build", "--offline", "--locked", "config")
    assert place.llmbuild("lock", "--offline").code == 0
    # A fetch whose trace is lost runs again from the blobs.
    shutil.rmtree(place.store / "traces")
    assert place.build("--offline", "config", env=place.env) == {"fetch": 1, "inspect": 1, "config": 1}
    assert hub.seen == []


def test_a_change_of_llmbuild_does_not_download_again(place: Place, hub: Hub, tmp_path: Path) -> None:
    place.ok("build", "config")
    changed = tmp_path / "changed"
    for name in ("llmbuild", "targets"):
        shutil.copytree(ROOT / name, changed / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (changed / "llmbuild/sources/http.py").open("a") as file:
        file.write("\n# A comment more.\n")
    hub.seen.clear()
    assert place.build("config", env={**place.env, "PYTHONPATH": str(changed)}) == {"fetch": 1}
    assert hub.seen == []


def test_a_locked_digest_is_enforced(place: Place, hub: Hub, files: dict[str, bytes]) -> None:
    place.ok("build", "config")
    right = hashlib.sha256(files["model.safetensors"]).hexdigest()
    place.lock.write_text(place.lock.read_text().replace(right, "0" * 64))
    done = place.llmbuild("build", "config")
    assert done.code == 4
    assert "note: fetch[tiny] in the cache is not what was locked, it is fetched again" in done.err
    assert "0" * 64 in done.err and right in done.err
    # The reason is that the source is another one now, not that anybody forced it.
    assert f"run fetch[tiny]: model.safetensors changed {right[:12]} -> {'0' * 12}" in " ".join(done.err.split())
    reason = {"reason": "input-changed", "task": "source", "file": "model.safetensors", "old": right, "new": "0" * 64}
    plan = json.loads(place.llmbuild("plan", "fetch", "--json").out)
    assert plan["tasks"][0]["reasons"][0].items() >= reason.items()
    started = [one for one in read_events(place.root / ".llmbuild/last-build.ndjson") if one["type"] == "explained"]
    assert started[0]["reasons"][0].items() >= reason.items()
    offline = place.llmbuild("build", "config", "--offline")
    assert offline.code == 4 and "is not what was locked" in offline.err
    place.lock.write_text(place.lock.read_text().replace("0" * 64, right))
    assert place.ok("build", "config").err.startswith("up to date")


def test_a_locked_digest_is_enforced_for_what_another_cache_gives(place: Place, hub: Hub, tmp_path: Path) -> None:
    remote = f"{tmp_path}/shared"
    place.ok("build", "fetch", "--remote", remote)
    locked = place.lock.read_text()
    shutil.rmtree(place.store)
    hub.seen.clear()
    place.ok("build", "fetch", "--remote", remote)
    assert not [path for path in hub.seen if "safetensors" in str(path)]
    # Somebody puts other weights there, under the same action.
    shared = Store(Path(remote))
    (trace,) = shared.traces.all()
    other = FileEntry("model.safetensors", shared.cas.put_bytes(b"others"), 6)
    files = [one for one in shared.cas.get_tree(trace.output).files if one.path != other.path]
    shared.traces.put(replace(trace, output=shared.cas.put_bytes(Tree.of([*files, other]).to_bytes())))
    shared.close()
    shutil.rmtree(place.store)
    done = place.ok("build", "fetch", "--remote", remote)
    assert "is refused: the lock file has the SHA-256" in " ".join(done.err.split())
    assert [path for path in hub.seen if "safetensors" in str(path)]
    assert place.lock.read_text() == locked
    assert not any(blob.read_bytes() == b"others" for blob in (place.store / "blobs").rglob("*") if blob.is_file())


def test_packages(place: Place, files: dict[str, bytes], tmp_path: Path) -> None:
    place.write(MANIFEST.replace("SOURCE", "pypi:tiny-model==1.2/tiny_model/hf/"))
    key = "pypi:tiny-model==1.2/tiny_model/hf/"
    inside = {f"tiny_model/hf/{name}": content for name, content in files.items()}
    make_wheel(tmp_path / "index", inside)
    started = tmp_path / "pip-was-started"
    stub = tmp_path / "stub/pip"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (stub / "__main__.py").write_text(f"open({str(started)!r}, 'w')\nraise SystemExit(1)\n")
    without_pip = {"PYTHONPATH": f"{stub.parent}:{ROOT}"}

    done = place.llmbuild("build", "config", "--offline", **without_pip)
    assert done.code == 4 and not started.exists()
    assert "fetch[tiny]: pypi:tiny-model==1.2/tiny_model/hf/: has to be downloaded" in done.err
    assert place.llmbuild("lock", "--offline", **without_pip).code == 4 and not started.exists()

    assert place.ok("lock").out.startswith("llmbuild.lock written: 11 changes\n")
    assert {name: entry["sha256"] for name, entry in read_lock(place.lock).sources[key]["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    place.ok("build", "config", "--offline", "--locked", **without_pip)
    assert not started.exists()
    assert place.llmbuild("build", "fetch", "--force", **without_pip).code == 0 and not started.exists()

    # The index replaces the wheel: whoever has the lock and an empty store is told.
    inside["tiny_model/hf/generation_config.json"] = b"{}"
    make_wheel(tmp_path / "index", inside)
    digests = [hashlib.sha256(content).hexdigest() for content in (files["generation_config.json"], b"{}")]
    done = place.llmbuild("build", "fetch", LLMBUILD_CACHE=str(tmp_path / "empty"))
    assert done.code == 4 and "is not what was\n  locked" in done.err
    assert all(digest in done.err for digest in digests)
    upgrade = place.ok("lock", "--upgrade")
    assert f"generation_config.json: sha256\n      {digests[0][:12]} -> {digests[1][:12]}, size" in upgrade.out
    place.ok("build", "config", "--locked", "--offline", **without_pip)


def test_sources_that_are_gone_leave_the_lock(place: Place, hub: Hub) -> None:
    place.ok("lock")
    shutil.copytree(cached_checkpoint("llama"), place.root / "checkpoint")
    place.write(MANIFEST.replace("SOURCE", "checkpoint"))
    place.ok("plan")
    assert KEY in read_lock(place.lock).sources
    done = place.ok("lock")
    assert "  - hf:org/tiny@main: only in the lock, nothing uses it\n" in done.out
    assert list(read_lock(place.lock).sources) == ["path:checkpoint"]


def test_upgrade_of_a_model_that_is_not_there(place: Place) -> None:
    done = place.llmbuild("lock", "--upgrade", "tinny")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: buildfile.toml: there is no model 'tinny' with a source in a build\n  fix: did you mean 'tiny'?\n"
    )


def test_notes_of_the_manifest(place: Place) -> None:
    shutil.copytree(cached_checkpoint("llama"), place.root / "checkpoint")
    place.write(MANIFEST.replace("SOURCE", "checkpoint") + '\n[platforms.spare]\ntarget = "x86_64-linux-cpu"\n')
    for _ in range(2):
        done = place.ok("plan", "config")
        assert done.err == "note: platforms.spare is in no build\n"
    assert place.ok("build", "config").err.count("note: ") == 1
    assert "note" not in place.ok("build", "config", "--quiet").err


def test_notes_are_dim_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from llmbuild.cli.common import print_note

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    print_note("a flag was asked for")
    assert capsys.readouterr().err == "\x1b[2mnote: a flag was asked for\x1b[0m\n"


def test_what_another_process_locked_meanwhile_stays(tmp_path: Path) -> None:
    from llmbuild.canonical import digest_json
    from llmbuild.engine.store import Store
    from llmbuild.manifest.load import load_project
    from llmbuild.manifest.lock import Lock, write_lock
    from llmbuild.workspace import fetched, locking
    from llmbuild.workspace.observe import observe_world
    from llmbuild.workspace.tool_identities import Toolchain
    from llmbuild.workspace.trust import Trust

    shutil.copytree(cached_checkpoint("llama"), tmp_path / "checkpoint")
    (tmp_path / "buildfile.toml").write_text(MANIFEST.replace("SOURCE", "checkpoint"))
    project = load_project(tmp_path / "buildfile.toml")
    store = Store(tmp_path / "store")
    seen = locking.load_lock(tmp_path, Toolchain(store.stat_cache))
    observed = observe_world(project, store, Toolchain(store.stat_cache), seen, Trust(Path(project.root)))
    tree = store.cas.put_tree(tmp_path / "checkpoint")

    others = Lock({"path:checkpoint": {"files": {"x": {"sha256": digest_json(1), "size": 1}}}, "pypi:a==1/b.gguf": {}})
    others.toolchain["numpy"] = "1"
    write_lock(tmp_path / "llmbuild.lock", others)
    fetched.complete(project, observed, seen, {"fetch[tiny]": tree})
    now = read_lock(tmp_path / "llmbuild.lock")
    assert now.sources == others.sources  # The next build sees both, and records what is there.
    assert now.toolchain["numpy"] == "1" and now.toolchain["python"]

    again = locking.load_lock(tmp_path, Toolchain(store.stat_cache))
    fetched.complete(project, observed, again, {"fetch[tiny]": tree})
    assert set(read_lock(tmp_path / "llmbuild.lock").sources["path:checkpoint"]["files"]) == set(
        locking.tree_files(tree)
    )
    memo = locking.load_lock(tmp_path, Toolchain(store.stat_cache))
    assert memo.to_toml() == locking.load_lock(tmp_path, Toolchain(store.stat_cache)).to_toml()
    assert memo.to_toml() == (tmp_path / "llmbuild.lock").read_text()
    (tmp_path / "llmbuild.lock").write_text("version = 7\n")
    with pytest.raises(UsageError, match="has version 7"):
        locking.load_lock(tmp_path, Toolchain(store.stat_cache))


def test_what_a_hub_says_wrongly_is_neither_a_bug_nor_pinned(place: Place) -> None:
    sizes = b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "size": -1, "blobId": "%s"}]}' % (
        b"a" * 40,
        b"b" * 40,
    )
    for answer, said in ((sizes, "siblings[0].size is not a number of bytes"), (b"[" * 100_000, "nested too deeply")):
        with raw_server(response(answer)) as server:
            result = place.llmbuild("plan", HF_ENDPOINT=server.url)
        assert (result.code, said in result.err.replace("\n        ", " ")) == (4, True), result.text
        assert not place.lock.exists()
    for env, code in (
        ({"HF_ENDPOINT": "http://[::1"}, 2),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "soon"}, 2),
        ({"HF_ENDPOINT": "http://mirror.invalid", "HF_TOKEN": "hf_x"}, 4),
    ):
        result = place.llmbuild("plan", **env)
        assert (result.code, "HF_" in result.err) == (code, True), result.text


@pytest.mark.parametrize(
    "sources",
    [5, [], {"hf:a/b@main": {}}, {"path:x": {"files": {"../x": {"sha256": "a" * 64}}}}, {"path:x": {"files": 5}}],
)
def test_a_memo_of_the_lock_that_is_wrong_is_not_believed(tmp_path: Path, sources: object) -> None:
    (tmp_path / "llmbuild.lock").write_text("version = 1\n")
    seal = Seal(tmp_path / "secret")
    toolchain: Any = SimpleNamespace(source_files=lambda _: {}, seal=seal)
    assert locking.load_lock(tmp_path, toolchain).sources == {}
    memo = tmp_path / ".llmbuild" / "lock-file.json"
    assert seal.holds(memo.read_bytes())
    value = json.loads(memo.read_text())
    assert value.pop("seal")
    memo.write_bytes(seal.put({**value, "sources": sources}))
    assert locking.load_lock(tmp_path, toolchain).sources == {}


def test_a_memo_of_the_lock_that_a_repository_brought_is_not_believed(tmp_path: Path) -> None:
    """Digests other than those of the lock that people have read are written there by whoever knows llmbuild's code."""
    (tmp_path / "llmbuild.lock").write_text("version = 1\n")
    own: Any = SimpleNamespace(source_files=lambda _: {}, seal=Seal(tmp_path / "secret"))
    assert locking.load_lock(tmp_path, own).sources == {}
    memo = tmp_path / ".llmbuild" / "lock-file.json"
    value = json.loads(memo.read_text())
    value.pop("seal")
    value["sources"] = {"path:x": {"files": {"config.json": {"sha256": "a" * 64}}}}
    for forged in (canonical_json(value), Seal(tmp_path / "other").put(value)):
        memo.write_bytes(forged)
        assert locking.load_lock(tmp_path, own).sources == {}
    # A toolchain without a store keeps no memo.
    memo.unlink()
    without: Any = SimpleNamespace(source_files=lambda _: {}, seal=None)
    assert locking.load_lock(tmp_path, without).sources == {}
    assert not memo.exists()


def test_locked_hashes_local_files_whatever_their_stat_says(place: Place, files: dict[str, bytes]) -> None:
    shutil.copytree(cached_checkpoint("llama"), place.root / "checkpoint")
    place.write(MANIFEST.replace("SOURCE", "checkpoint"))
    place.ok("lock")
    file = place.root / "checkpoint" / "model.safetensors"
    changed = bytearray(files[file.name])
    changed[-1] ^= 1
    file.write_bytes(changed)
    # A change through a mapping may leave a file's inode, size and times: what is remembered is right by all of them.
    memo = place.store / "stat.json"
    rows = json.loads(memo.read_bytes()) if memo.exists() else {}
    rows[str(file)] = [*stamp_of(file.stat()), hashlib.sha256(files[file.name]).hexdigest()]
    memo.write_text(json.dumps(rows))
    done = place.llmbuild("plan", "--locked", COLUMNS="200")
    assert done.code == 2, done.text
    assert f"~ path:checkpoint: {file.name}: sha256" in done.text
