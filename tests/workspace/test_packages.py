"""Packages as part of a build: what runs after a change, what is written anew, and what a build that leaves them alone says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmbuild
from llmbuild.engine.events import Event
from llmbuild.errors import FetchError, UsageError
from llmbuild.report.events import Installed
from llmbuild.workspace.packages import outdated, package_labels
from llmbuild.workspace.workspace import Workspace
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import LONGER_MANIFEST, ProjectDir, make_project, tasks_run
from tests.helpers.npm_registry import running_registry, tarball

SERVER = "[package.server]\n"
MODEL = "tiny-q0f32-MLC"
LIBRARY = "tiny-q0f32-x86_64-linux-cpu.so"
PAGE = '[package.page]\nkind = "web"\npage = true\nweb-llm = "npm:@tiny/page==1.2.3"\n'


@pytest.fixture(scope="module")
def packaged(built: ProjectDir, tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """A project with a package that was made, beside the results of a build."""
    place = tmp_path_factory.mktemp("packaged") / "place"
    shutil.copytree(built.root.parent, place)
    # A copy has no links between the results and the store.
    shutil.rmtree(place / "project/dist")
    project = ProjectDir(place / "project", place / "store")
    project.write(LONGER_MANIFEST + SERVER)
    assert project.build("package", "--provenance") == {"package": 1}
    return project


@pytest.fixture
def project(packaged: ProjectDir) -> Iterator[ProjectDir]:
    """The same, as it was before each test."""
    yield packaged
    packaged.write(LONGER_MANIFEST + SERVER)
    with opened(packaged) as workspace:
        workspace.build("package", provenance=True)


def opened(project: ProjectDir, notes: list[str] | None = None, **options: bool) -> Workspace:
    on_note = (notes if notes is not None else []).append
    return llmbuild.open(project.root, cache=project.store, on_note=on_note, **options)


def edited(project: ProjectDir, old: str, new: str) -> None:
    assert old in LONGER_MANIFEST + SERVER
    project.write((LONGER_MANIFEST + SERVER).replace(old, new))


def installed(events: list[Event]) -> Installed:
    (one,) = (event for event in events if isinstance(event, Installed))
    return one


def test_a_server_has_the_model_and_its_library(project: ProjectDir) -> None:
    plain, packaged = project.snapshot("dist"), project.snapshot("dist/server")
    own = {name: data for name, data in plain.items() if not name.startswith(("server/", "provenance/"))}
    assert packaged == {
        **{name: data for name, data in own.items() if name.startswith(MODEL)},
        f"libs/{LIBRARY}": own[f"libs/{LIBRARY}"],
    }
    # Where reflinks are not possible, both names are of the cache's own file.
    names = [
        project.root / "dist" / name for name in (f"{MODEL}/params_shard_0.bin", f"server/{MODEL}/params_shard_0.bin")
    ]
    links = [name.stat().st_nlink for name in names]
    assert names[0].samefile(names[1]) or links == [1, 1]


def test_a_model_is_loaded_from_the_folder(project: ProjectDir) -> None:
    """Its library is found beside it, as beside the directories of a build."""
    with llmbuild.load(project.root / "dist/server" / MODEL, seed=1) as model:
        assert model.generate("a", max_tokens=2) is not None
        assert model.library == project.root / "dist/server/libs" / LIBRARY


def test_a_changed_temperature_packages_only_what_changed(project: ProjectDir) -> None:
    edited(project, '"chatml"\n', '"chatml"\ngeneration.temperature = 0.25\n')
    events: list[Event] = []
    with opened(project) as workspace:
        plan = workspace.plan("package")
        stale = {verdict.task.label: verdict.state for verdict in plan.verdicts if verdict.state != "cached"}
        assert stale["config[tiny, q0f32]"] == "run"
        assert stale["package[server]"] == "maybe"
        outcome = workspace.build("package[server]", on_event=events.append, provenance=True)
    ran = sorted(label for label, one in outcome.result.outcomes.items() if one.status.value != "cached")
    assert ran == ["config[tiny, q0f32]", "package[server]"]
    written = [f"dist/{place}/mlc-chat-config.json" for place in (f"server/{MODEL}", MODEL)]
    assert sorted(name for name in installed(events).written if "provenance" not in name) == written
    assert installed(events).removed == ()
    assert json.loads((project.root / written[0]).read_text())["temperature"] == 0.25
    (folder,) = (one for one in outcome.outputs if one.path.name == "server")
    assert folder.tasks == ("package[server]",)
    assert sorted(folder.files) == sorted(project.snapshot("dist/server"))


def test_a_build_without_names_leaves_packages_alone_and_says_so(project: ProjectDir) -> None:
    edited(project, '"chatml"\n', '"chatml"\ngeneration.temperature = 0.5\n')
    before = project.snapshot("dist/server")
    note = "package server is not up to date; `llmbuild package server` makes it again"
    planned = project.run("plan")
    assert "package[" not in planned.out
    assert note in " ".join(planned.err.split())
    assert project.build() == {"config": 1}
    assert project.snapshot("dist/server") == before
    notes: list[str] = []
    with opened(project, notes) as workspace:
        assert not workspace.plan().stale
        workspace.build()
    assert notes == [note]
    # A narrowed build does not know what else the package needs.
    assert project.run("build", "-m", "tiny").text.count("up to date") == 2
    assert project.build("package") == {"package": 1}
    with opened(project, notes) as workspace:
        workspace.build()
    assert notes == [note]
    (project.root / "dist/server" / MODEL / "params_shard_0.bin").unlink()
    with opened(project, notes) as workspace:
        workspace.build()
    assert notes == [note, note]


def test_a_package_that_was_never_made_is_not_missed(project: ProjectDir) -> None:
    project.write(LONGER_MANIFEST + SERVER + '[package.other]\nkind = "server"\n')
    done = project.run("build")
    assert "other" not in done.text
    done = project.run("package", "other", "--dry-run")
    # Its folder would be the same one, and no key has a package's name.
    assert "1 to restore" in done.out
    assert not (project.root / "dist/other").exists()


def test_plan_why_and_check_know_the_task(project: ProjectDir) -> None:
    assert "up to date" in project.run("plan", "package[server]").out
    assert project.run("why", "package[server]").code == 0
    done = project.run("package", "--check")
    assert done.code == 0
    assert "same   package[server]" in done.text
    events = project.root / "events"
    assert project.run("package", "--force", "--events", str(events)).code == 0
    assert tasks_run(events) == {"package": 1}


def test_a_second_store_makes_the_same_bytes(project: ProjectDir, built: ProjectDir, tmp_path: Path) -> None:
    """What the models' tasks give is the same anywhere, and of the package no byte depends on the place or the time."""
    other = make_project(tmp_path, LONGER_MANIFEST + SERVER, cached_checkpoint("llama"))
    archive, shared = tmp_path / "archive.tar", {"LLMBUILD_REMOTE": str(tmp_path / "shared")}
    assert project.run("cache", "export", str(archive)).code == 0
    assert other.run("cache", "import", str(archive)).code == 0
    assert other.build("package", "--force", env=shared) == {"package": 1}
    assert other.snapshot("dist/server") == project.snapshot("dist/server")
    # A third machine, which has the models already, takes the package from the cache that both share.
    shutil.copytree(built.root.parent, tmp_path / "third")
    third = ProjectDir(tmp_path / "third/project", tmp_path / "third/store")
    third.write(LONGER_MANIFEST + SERVER)
    assert third.build("package", env=shared) == {}
    assert third.snapshot("dist/server") == project.snapshot("dist/server")


def test_what_a_package_had_is_removed_with_it(project: ProjectDir) -> None:
    assert (project.root / "dist/provenance/server.intoto.json").is_file()
    project.write(LONGER_MANIFEST)
    events: list[Event] = []
    with opened(project) as workspace:
        workspace.build(on_event=events.append, provenance=True)
    gone = installed(events).removed
    assert f"dist/server/libs/{LIBRARY}" in gone
    assert "dist/provenance/server.intoto.json" in gone
    assert not (project.root / "dist/server").exists()
    assert (project.root / f"dist/libs/{LIBRARY}").is_file()


def test_a_statement_names_what_a_package_is_made_of(project: ProjectDir) -> None:
    statement = json.loads((project.root / "dist/provenance/server.intoto.json").read_text())
    names = [one["name"] for one in statement["subject"]]
    assert names == sorted(f"server/{name}" for name in project.snapshot("dist/server"))
    steps = statement["predicate"]["buildDefinition"]["externalParameters"]["steps"]
    assert {"package[server]", "quantize[tiny, q0f32]", "link[tiny, q0f32, x86_64-linux-cpu]"} <= steps.keys()


def test_names_that_are_no_packages(project: ProjectDir) -> None:
    with opened(project) as workspace:
        whole = workspace.whole
    assert package_labels(whole, ()) == package_labels(whole, ("server", "server")) == ("package[server]",)
    with pytest.raises(UsageError, match="there is no package 'sever'") as caught:
        package_labels(whole, ("sever",))
    assert caught.value.fix == "did you mean 'server'?"
    project.write(LONGER_MANIFEST)
    with opened(project) as workspace, pytest.raises(UsageError, match="the manifest has no packages"):
        package_labels(workspace.whole, ())
    done = project.run("package")
    assert (done.code, done.out) == (2, "")
    assert "the manifest has no packages" in done.err


@pytest.fixture
def page(project: ProjectDir) -> ProjectDir:
    """The project with a page besides, whose source the lock does not pin."""
    project.write(LONGER_MANIFEST.replace('cpu"]', 'cpu", "web"]') + SERVER)
    with opened(project) as workspace:
        workspace.lock()
    project.write(LONGER_MANIFEST.replace('cpu"]', 'cpu", "web"]') + SERVER + PAGE)
    return project


def test_the_sources_of_a_package_are_looked_up_for_it_alone(page: ProjectDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://127.0.0.1:9")
    with opened(page) as workspace:
        assert not any("page" in verdict.task.label for verdict in workspace.plan().verdicts)
        workspace.plan("package[server]")
        (page.root / "dist/page").mkdir()
        assert "page" in outdated(workspace.look("config"), {})
        (page.root / "dist/page").rmdir()
        with pytest.raises(UsageError, match=r"no task matches 'package\[pgae\]'") as caught:
            workspace.plan("package[pgae]")
        assert "did you mean 'package[page]'" in str(caught.value.fix)
    line = (page.root / "buildfile.toml").read_text().splitlines().index(PAGE.splitlines()[-1]) + 1
    with opened(page, offline=True) as workspace:
        for name in ("package[page]", "package", "fetch*"):
            with pytest.raises(FetchError, match="@tiny/page==1") as refused:
                workspace.plan(name)
            assert f"/buildfile.toml:{line}: package.page.web-llm: npm:" in str(refused.value.where)


def test_a_package_keeps_to_what_is_locked_and_to_what_is_here(
    page: ProjectDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tarball({"package/package.json": b'{"module": "lib/index.js"}', "package/lib/index.js": b"export {}"})
    with running_registry(archive) as registry:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry.url)
        with opened(page, locked=True) as workspace:
            workspace.plan("lower")
            with pytest.raises(UsageError, match="lock file is not up to date") as unpinned:
                workspace.plan("package[page]")
            assert "npm:@tiny/page==1.2.3" in str(unpinned.value)
        with opened(page, offline=True) as workspace, pytest.raises(FetchError, match="offline"):
            workspace.plan("package[page]")
        assert registry.seen == []
        with opened(page) as workspace:
            assert workspace.lock(check=True).stale
            workspace.lock()
        asked = len(registry.seen)
        with opened(page, locked=True) as workspace:
            workspace.plan("package[page]")
        assert len(registry.seen) == asked > 0
    with opened(page, locked=True, offline=True) as workspace:
        workspace.plan("package[page]")
