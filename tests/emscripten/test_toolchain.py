"""Finding Emscripten, and its name in a key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from llmbuild.emscripten import toolchain
from llmbuild.errors import ToolchainError


def fake(place: Path, *lines: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    path = place / "emcc"
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(autouse=True)
def no_emscripten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("EMSDK", raising=False)


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        ("emcc (Emscripten gcc/clang-like replacement + linker emulating GNU ld) 3.1.6 ()", "emcc 3.1.6"),
        ("emcc (Emscripten gcc/clang-like replacement + linker emulating GNU ld) 4.0.9 (0ab1c2)", "emcc 4.0.9 0ab1c2"),
        ("emcc (Emscripten) 4.0.9-git", "emcc 4.0.9-git"),
        ("something else", "emcc something else"),
    ],
)
def test_the_version_is_the_identity(tmp_path: Path, first: str, wanted: str) -> None:
    fake(tmp_path / "bin", f"echo '{first}'", "echo Copyright")
    assert toolchain.identity() == wanted


def test_the_sdk_of_the_environment_and_a_named_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_sdk = fake(tmp_path / "sdk/upstream/emscripten", "echo x")
    monkeypatch.setenv("EMSDK", str(tmp_path / "sdk"))
    assert toolchain.find().command == (str(in_sdk),)
    on_path = fake(tmp_path / "bin", "echo x")
    assert toolchain.find().command == (str(on_path),)
    assert toolchain.find([str(in_sdk), "-v"]).command == (str(in_sdk), "-v")


def test_no_emscripten_is_said_with_a_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="'emcc' is not on PATH") as caught:
        toolchain.identity()
    assert "apt install emscripten" in str(caught.value)
    with pytest.raises(ToolchainError, match="'emcc-next' is not on PATH"):
        toolchain.identity(["emcc-next"])
    # An SDK does not stand in for what was named.
    fake(tmp_path / "sdk/upstream/emscripten", "echo x")
    monkeypatch.setenv("EMSDK", str(tmp_path / "sdk"))
    with pytest.raises(ToolchainError, match="'emcc-next' is not on PATH"):
        toolchain.find(["emcc-next"])


def test_an_emscripten_that_does_not_run_is_said_with_its_words(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "echo no LLVM here >&2", "exit 3")
    with pytest.raises(ToolchainError, match="does not run") as caught:
        toolchain.identity()
    assert "no LLVM here" in str(caught.value)


@pytest.mark.parametrize(("frozen", "writable", "own"), [("True", False, False), ("", True, False), ("", False, True)])
def test_a_cache_that_cannot_be_written_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: str, writable: bool, own: bool
) -> None:
    emcc = fake(tmp_path / f"bin-{frozen}-{writable}", "echo cache=$EM_CACHE")
    config = emcc.with_name("em-config")
    config.write_text(f'#!/bin/sh\ntest $1 = CACHE && echo {tmp_path} || echo "{frozen}"\n')
    config.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", "/the/cache")
    monkeypatch.delenv("EM_CACHE", raising=False)
    # The tests may run as root, who can write everywhere.
    monkeypatch.setattr(toolchain, "_writable", lambda _: writable)
    said = toolchain.run(toolchain.find([str(emcc)]), [], tmp_path, emcc.parent.name + "/emcc")
    assert said == ("cache=/the/cache/llmbuild-emscripten" if own else "cache=")
    monkeypatch.setenv("EM_CACHE", "/mine")
    toolchain._cache.cache_clear()
    assert toolchain.run(toolchain.find([str(emcc)]), [], tmp_path, emcc.parent.name + "/emcc") == "cache=/mine"
