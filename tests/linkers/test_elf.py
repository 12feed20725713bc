"""The shared-object linker: finding a compiler, saying what is missing, equal bytes for equal objects."""

from __future__ import annotations

import ctypes
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from llmbuild import linkers
from llmbuild.errors import ExitCode, ToolchainError, UsageError
from llmbuild.linkers import elf

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    where = tmp_path_factory.mktemp("objects")
    for name, code in {
        "lib0": "int other(void); int answer(void) { return other(); }",
        "devc": "int other(void) { return 42; }",
    }.items():
        (where / f"{name}.c").write_text(code)
        subprocess.run(["cc", "-fPIC", "-c", f"{name}.c", "-o", f"{name}.o"], cwd=where, check=True)
    return sorted(where.glob("*.o"))


def build(objects: list[Path], where: Path, **link: object) -> bytes:
    (where / "scratch").mkdir(parents=True)
    linkers.link_objects(link, "so", objects, where / "lib.so", scratch=where / "scratch")  # type: ignore[arg-type]
    return (where / "lib.so").read_bytes()


def test_links_and_loads(objects: list[Path], tmp_path: Path) -> None:
    build(objects, tmp_path / "a")
    assert ctypes.CDLL(str(tmp_path / "a/lib.so")).answer() == 42


def test_same_bytes_in_other_directories(objects: list[Path], tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    copies = [Path(shutil.copy(path, tmp_path / "copies")) for path in objects]
    first = build(objects, tmp_path / "a")
    assert first == build(copies[::-1], tmp_path / "a much longer directory name")
    assert str(tmp_path).encode() not in first


def test_identity_has_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "mycc"
    fake.write_text("#!/bin/sh\necho mycc 1.2.3\necho more\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(fake))
    assert linkers.identity({}, "so") == "mycc: mycc 1.2.3"
    monkeypatch.setenv("CC", f"{fake} -m64")
    assert linkers.identity({}, "so") == "mycc -m64: mycc 1.2.3"


def test_no_compiler_is_said_with_a_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(elf, "_lld", lambda: None)
    with pytest.raises(ToolchainError, match="no C compiler on PATH") as caught:
        linkers.identity({}, "so")
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    assert "install" in str(caught.value)


@pytest.mark.parametrize(("link", "env"), [({"compiler": "nothing-cc"}, None), ({}, "nothing-cc")])
def test_named_compiler_is_missing(monkeypatch: pytest.MonkeyPatch, link: dict[str, str], env: str | None) -> None:
    monkeypatch.setenv("CC", env) if env else monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ToolchainError, match="'nothing-cc' is not on PATH"):
        linkers.identity(link, "so")


def test_linker_failure_carries_its_words(objects: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.o"
    broken.write_bytes(b"not an object")
    with pytest.raises(ToolchainError, match="failed with exit code") as caught:
        build([*objects, broken], tmp_path / "a")
    assert "broken.o" in str(caught.value)
    assert not (tmp_path / "a/lib.so").exists()


def test_flags_reach_the_linker(objects: list[Path], tmp_path: Path) -> None:
    assert build(objects, tmp_path / "a", flags=["-s"]) != build(objects, tmp_path / "b")


def test_unknown_artifact() -> None:
    with pytest.raises(UsageError, match="no linker writes 'xyz'"):
        linkers.identity({}, "xyz")


@pytest.mark.parametrize(
    "name", ["LD_RUN_PATH", "LIBRARY_PATH", "LDEMULATION", "GCC_EXEC_PREFIX", "COLLECT_NO_DEMANGLE"]
)
def test_the_environment_changes_no_byte(
    objects: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without = build(objects, tmp_path / "a")
    monkeypatch.setenv(name, "elf_i386" if name == "LDEMULATION" else f"{tmp_path}/elsewhere/")
    assert build(objects, tmp_path / "b") == without


def test_another_linker_on_the_compilers_path_is_not_used(
    objects: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = build(objects, tmp_path / "a")
    (tmp_path / "ld").write_text(f'#!/bin/sh\nexec {shutil.which("ld")} "$@" -soname swapped-linker\n')
    (tmp_path / "ld").chmod(0o755)
    monkeypatch.setenv("COMPILER_PATH", str(tmp_path))
    assert build(objects, tmp_path / "b") == without


@pytest.mark.parametrize("artifact", ["so", "dll", "dylib", "wasm"])
def test_a_tool_that_wrote_nothing_is_an_error_of_the_toolchain(
    objects: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: str
) -> None:
    for name in ("cc", "lld-link", "ld64.lld", "emcc"):
        (tmp_path / name).write_text("#!/bin/sh\necho fine\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("llmbuild.programs.zig._program", lambda: None)
    triple = {"dll": "x86_64-pc-windows-msvc", "dylib": "arm64-apple-macosx13.0.0", "wasm": "wasm32"}.get(artifact)
    link = {} if triple is None else {"triple": triple}
    with pytest.raises(ToolchainError, match=r"wrote no lib\.") as caught:
        linkers.link_objects(link, artifact, objects, tmp_path / "out", scratch=tmp_path)
    assert caught.value.exit_code == ExitCode.TOOLCHAIN and "fine" in str(caught.value)


def test_a_compiler_of_several_words(objects: list[Path], tmp_path: Path) -> None:
    assert build(objects, tmp_path / "a", compiler=["env", "cc"]) == build(objects, tmp_path / "b", compiler="cc")
    with pytest.raises(ToolchainError, match="the C compiler 'sh -c true' is not on PATH"):
        build(objects, tmp_path / "c", compiler="sh -c true")


def test_a_cc_that_is_no_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc 'unfinished")
    with pytest.raises(ToolchainError, match=r"\$CC is no command\n  why: gcc 'unfinished: No closing quotation"):
        linkers.identity({}, "so")
