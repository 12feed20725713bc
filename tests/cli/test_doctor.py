"""`doctor`: each line says what is and what to do, and the exit code whether a build would fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.cli.doctor import lines
from llmbuild.cli.main import main
from llmbuild.errors import ToolchainError
from llmbuild.report.style import Style
from llmbuild.workspace import doctor
from llmbuild.workspace.platform_tools import Machine
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an up-to-date lock file; tools and free space are fixed ones."""
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LLMBUILD_CACHE", str(project.store))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "LLMBUILD_EXECUTOR", "LLMBUILD_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Machine, "linker", lambda self, link, artifact: "cc: gcc 13.2.0")
    monkeypatch.setattr(Machine, "missing_for_device", lambda self, part: [])
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 500 << 30}))
    monkeypatch.setattr("llmbuild.engine.memory.available", lambda: 64 << 30)
    return project.root


def found(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, dict[str, str]]:
    capsys.readouterr()
    assert main(["doctor", "--json", *arguments]) == code
    return {one["name"]: one for one in json.loads(capsys.readouterr().out)}


def test_a_machine_and_a_project_that_are_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock"]) == 0
    shown = found(capsys)
    assert {name: one["state"] for name, one in shown.items()} == dict.fromkeys(
        ["python", "tvm", "settings", "store", "memory", "executor", "remote", "manifest", "lock", "targets"], "ok"
    )
    assert shown["tvm"]["text"].count("post1") == 2
    assert shown["targets"]["text"] == "1 of 1 ready: x86_64-linux-cpu"
    assert shown["manifest"]["text"] == "buildfile.toml: 1 library"


def test_a_store_that_no_build_has_made_yet(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_usage(path: Path) -> object:
        path.stat()
        return type("Usage", (), {"free": 500 << 30})

    monkeypatch.setattr(doctor.shutil, "disk_usage", disk_usage)
    store = here / "not" / "yet"
    monkeypatch.setenv("LLMBUILD_CACHE", str(store))
    assert next(one for one in doctor.examine(None) if one.name == "store").state == "ok"
    assert not store.parent.exists(), "nothing is changed"
    # The superuser may write everywhere.
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: path != here)
    assert found(capsys, code=1)["store"]["text"] == f"{store}: nothing can be written in {here}"


def test_each_lack_is_named_with_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_linker(self: object, link: object, artifact: str) -> str:
        raise ToolchainError("there is no linker", fix="`apt install gcc`")

    monkeypatch.setattr(Machine, "linker", no_linker)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5 << 30}))
    monkeypatch.setattr("llmbuild.engine.memory.available", lambda: 1 << 30)
    monkeypatch.setenv("LLMBUILD_EXECUTOR", "nowhere")
    monkeypatch.setenv("LLMBUILD_REMOTE", "nothing")
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.1.15")
    settings = Path.home() / ".config/llmbuild/config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("jobs = 0\n")
    shown = found(capsys, code=1)
    assert {name: one["state"] for name, one in shown.items() if one["state"] != "ok"} == {
        "tvm": "fail",
        "settings": "fail",
        "store": "warn",
        "memory": "warn",
        "executor": "fail",
        "remote": "fail",
        "lock": "warn",
        "x86_64-linux-cpu": "fail",
    }
    assert all(one["fix"] for one in shown.values() if one["state"] != "ok")
    assert "apache-tvm-ffi==0.1.14.post1" in shown["tvm"]["fix"]
    assert f"{settings}:1" in shown["settings"]["text"]


def test_a_full_disk_fails(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    assert found(capsys, code=1)["store"]["state"] == "fail"


def test_a_wrong_manifest_has_a_line_for_each_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "buildfile.toml").write_text("[models.tiny]\nsource = 3\n[[build]]\nmodels = ['tinny']\n")
    capsys.readouterr()
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.count("fail  manifest: buildfile.toml:") >= 2
    assert "lock" not in out


def test_without_a_manifest_all_targets_are_looked_at(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = found(capsys)
    assert shown["manifest"]["text"] == "none here"
    assert "wasm32-webgpu" in shown["targets"]["text"]
    assert found(capsys, "-f", "missing.toml", code=1)["manifest"]["state"] == "fail"


def test_a_stale_lock_is_a_warning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock"]) == 0
    (here / "checkpoint/config.json").write_text((here / "checkpoint/config.json").read_text() + " ")
    lock = found(capsys)["lock"]
    assert (lock["state"], bool(lock["fix"])) == ("warn", True)


def test_lines_at_80_columns() -> None:
    finding = doctor.Finding("aarch64-linux-cpu", "warn", "there is no linker for aarch64 Linux on this machine, and no zig",
                             "`pip install 'llmbuild[cross]'` brings a linker for ELF, Mach-O and Windows")  # fmt: skip
    assert lines(finding, Style(80)) == [
        "warn  aarch64-linux-cpu: there is no linker for aarch64 Linux on this machine,",
        "        and no zig",
        "        -> `pip install 'llmbuild[cross]'` brings a linker for ELF, Mach-O and",
        "           Windows",
    ]
