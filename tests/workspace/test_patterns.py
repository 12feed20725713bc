"""Platforms of `host` and of patterns on machines that differ: left out with a note, or as the lock file has them."""

from __future__ import annotations

import platform as machine
from pathlib import Path

import pytest

from llmbuild import linkers
from llmbuild.cli.main import main
from llmbuild.errors import ToolchainError
from llmbuild.manifest.lock import read_lock
from tests.helpers.checkpoints import cached_checkpoint

MANIFEST = """\
[models.a]
preset = "smollm2_135m"

[[build]]
quantizations = ["q4f32_1"]
platforms = ["*-linux-cpu"]
"""
LOCK = Path("llmbuild.lock")
ARM = "aarch64-linux-cpu"


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The architectures that this machine has no linker for, which a test changes."""
    real, lacking = linkers.identity, {"aarch64"}

    def identity(link: dict[str, object], artifact: str) -> str:
        if str(link["triple"]).split("-")[0] in lacking:
            raise ToolchainError("there is no linker for aarch64", fix="`apt-get install lld`")
        return real(link, artifact)

    monkeypatch.setattr(linkers, "identity", identity)
    return lacking


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LLMBUILD_CACHE": str(tmp_path / "store"), "COLUMNS": "80", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("buildfile.toml").write_text(MANIFEST)


def test_what_a_machine_cannot_build_is_left_out_with_a_note(
    lacking: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--strict"]) == 0
    out, err = capsys.readouterr()
    assert "link[a, q4f32_1, x86_64-linux-cpu]" in out and ARM not in out
    assert err == (
        "note: 1 of 2 platforms that a pattern calls is left out, as this machine cannot\n"
        "  build for it (-p NAME says what to install): aarch64-linux-cpu: there is no\n"
        "  linker for aarch64\n"
    )
    # Who names it is told what it lacks, as ever.
    assert main(["plan", "--strict", "-p", ARM]) == 5
    assert main(["plan", "--strict", f"link[a, q4f32_1, {ARM}]"]) == 5
    assert "left out" not in capsys.readouterr().err
    # Nothing is left where everything is lacking: that is no empty plan.
    Path("buildfile.toml").write_text(MANIFEST.replace("*-linux-cpu", "aarch64-linux-cp*"))
    assert main(["plan", "--strict"]) == 5


def test_locked_builds_what_was_locked_or_says_what_it_lacks(
    lacking: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["lock"]) == 0
    assert {name for name in read_lock(LOCK).toolchain if name.startswith("target ")} == {"target x86_64-linux-cpu"}
    assert main(["plan", "--locked", "--strict"]) == 0
    capsys.readouterr()
    # Another machine could build more.
    lacking.clear()
    assert main(["plan", "--locked"]) == 2
    assert f"toolchain: target {ARM}: not in the lock" in capsys.readouterr().err
    assert main(["lock"]) == main(["plan", "--locked", "--strict"]) == 0
    # And another one less: with --locked it stops, without it builds what it can.
    lacking.add("aarch64")
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "another machine's store"))
    capsys.readouterr()
    assert main(["build", "--locked"]) == 5
    assert "there is no linker for aarch64" in capsys.readouterr().err
    assert main(["plan", "--strict"]) == main(["lock", "--check"]) == main(["lock"]) == 0
    assert f"target {ARM}" in read_lock(LOCK).toolchain


def test_the_lock_has_what_host_was_resolved_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "machine", lambda: "x86_64")
    Path("buildfile.toml").write_text(MANIFEST.replace("*-linux-cpu", "host"))
    assert main(["lock"]) == main(["plan", "--locked"]) == 0
    assert read_lock(LOCK).toolchain["target host"] == "x86_64-linux-cpu"
    monkeypatch.setattr(machine, "machine", lambda: "aarch64")
    capsys.readouterr()
    assert main(["plan", "--locked"]) == 2
    assert "toolchain: target host: x86_64-linux-cpu -> aarch64-linux-cpu" in " ".join(capsys.readouterr().err.split())
    # Without --locked a machine builds for itself, and the lock stays until `llmbuild lock`.
    assert main(["plan"]) == 0
    assert read_lock(LOCK).toolchain["target host"] == "x86_64-linux-cpu"
    assert main(["lock"]) == 0
    assert read_lock(LOCK).toolchain["target host"] == "aarch64-linux-cpu"


def test_a_package_is_left_out_with_a_platform_of_a_pattern_unless_it_is_named(
    lacking: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("checkpoint").symlink_to(cached_checkpoint("llama"))
    Path("buildfile.toml").write_text(
        MANIFEST.replace('preset = "smollm2_135m"', 'source = "checkpoint"\nconv-template = "chatml"')
        + '[package.server]\nkind = "server"\n'
    )
    assert main(["plan", "--strict"]) == 0
    assert "without them there is no package server" in " ".join(capsys.readouterr().err.split())
    assert main(["plan", "--strict", "package[server]"]) == 5
    assert "there is no linker for aarch64" in capsys.readouterr().out
