"""A lock for platforms that this machine cannot link for."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild import linkers
from llmbuild.cli.main import main
from llmbuild.errors import ToolchainError
from llmbuild.manifest.lock import read_lock, write_lock
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST

HERE, ELSEWHERE = "linker x86_64-linux-cpu", "linker aarch64-linux-cpu"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project for two platforms, one of which has no linker here."""
    real = linkers.identity

    def identity(link: dict[str, object], artifact: str) -> str:
        if str(link["triple"]).startswith("aarch64"):
            raise ToolchainError("there is no linker for aarch64", fix="`apt-get install lld`")
        return real(link, artifact)

    monkeypatch.setattr(linkers, "identity", identity)
    for name, value in {"LLMBUILD_CACHE": str(tmp_path / "store"), "COLUMNS": "80", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("checkpoint").symlink_to(cached_checkpoint("llama"))
    Path("buildfile.toml").write_text(
        TINY_MANIFEST.replace('["x86_64-linux-cpu"]', '["x86_64-linux-cpu", "aarch64-linux-cpu"]')
    )
    return tmp_path


def test_what_is_not_here_is_said_and_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("llmbuild.lock written: ")
    assert err == (
        "note: the linker of aarch64-linux-cpu is not recorded, it is not on this\n"
        "  machine: there is no linker for aarch64 (`apt-get install lld`)\n"
    )
    lock = read_lock(project / "llmbuild.lock")
    assert HERE in lock.toolchain and ELSEWHERE not in lock.toolchain and lock.sources
    # It is up to date, as far as this machine can tell; the platform itself cannot be built.
    assert main(["lock", "--check"]) == 0
    assert main(["plan", "--locked"]) == 0
    assert main(["plan", "--locked", "--strict"]) == main(["build", "--locked"]) == 5


def test_what_another_machine_recorded_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock"]) == 0
    lock = read_lock(project / "llmbuild.lock")
    lock.record_tool(ELSEWHERE, "lld 21.1.0")
    write_lock(project / "llmbuild.lock", lock)
    capsys.readouterr()
    for command in (["lock", "--check"], ["lock"], ["lock", "--upgrade"]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert out.startswith("llmbuild.lock is up to date: 1 source, ")
        assert err.startswith("note: the linker of aarch64-linux-cpu is kept as it was locked, it is not on\n")
        assert read_lock(project / "llmbuild.lock").toolchain[ELSEWHERE] == "lld 21.1.0"
