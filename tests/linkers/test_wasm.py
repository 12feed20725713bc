"""WebAssembly modules: what they import is read from their bytes and held against what browsers provide."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from llmbuild import linkers
from llmbuild.errors import ToolchainError
from llmbuild.linkers.wasm import IMPORTS, check_imports, imports

needs_emcc = pytest.mark.skipif(shutil.which("emcc") is None, reason="no Emscripten (apt install emscripten)")


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def module(*entries: bytes) -> bytes:
    """A module with a custom section, a type section and an import section of these entries."""
    listed = bytes([len(entries)]) + b"".join(entries)
    # The size is written in five bytes, as a linker does that fills it in later.
    size = bytes([len(listed) & 127 | 128, len(listed) >> 7 | 128, 128, 128, 0])
    return b"\0asm\1\0\0\0" + b"\0\3" + text("ab") + b"\1\4\1\x60\0\0" + b"\2" + size + listed


def entry(place: str, name: str, description: bytes = b"\0\0") -> bytes:
    return text(place) + text(name) + description


def test_reads_imports_of_every_kind() -> None:
    described = {
        "function": b"\0\x81\1",
        "table": b"\1\x70\0\1",
        "bounded table": b"\1\x70\1\1\x80\2",
        "memory": b"\2\1\1\x80\x80\4",
        "global": b"\3\x7f\1",
        "tag": b"\4\0\0",
    }
    data = module(*(entry("env", name, description) for name, description in described.items()))
    assert list(imports(data)) == [("env", name) for name in described]


def test_a_module_without_imports_and_bytes_that_are_none() -> None:
    assert list(imports(b"\0asm\1\0\0\0")) == []
    with pytest.raises(ValueError, match="not a WebAssembly module"):
        list(imports(b"\x7fELF"))
    with pytest.raises(ValueError, match="unknown kind 9"):
        list(imports(module(entry("env", "x", b"\x09"))))


def test_an_import_that_browsers_lack_is_named() -> None:
    check_imports(module(*(entry(place, name) for place, name in IMPORTS)))
    with pytest.raises(ToolchainError) as caught:
        check_imports(module(entry("env", "TVMFFIWasmSafeCall"), entry("env", "fork")), "emcc 9")
    assert "env.fork" in str(caught.value) and "TVMFFIWasmSafeCall" not in str(caught.value)
    assert "emcc 9" in str(caught.value) and "[link] flags" in str(caught.value)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Objects of which one takes a function from JavaScript, as the runtime does."""
    where = tmp_path_factory.mktemp("objects")
    code = {
        "lib0": 'int other(void); __attribute__((export_name("answer"))) int answer(void) { return other(); }',
        "devc": "int TVMFFIWasmSafeCall(int); int other(void) { return TVMFFIWasmSafeCall(42); }",
        "more": 'int further(void); __attribute__((export_name("f"))) int f(void) { return further(); }',
    }
    for name, source in code.items():
        (where / f"{name}.c").write_text(source)
        subprocess.run(["emcc", "-O1", "-c", f"{name}.c", "-o", f"{name}.o"], cwd=where, check=True)
    return [where / "lib0.o", where / "devc.o", where / "more.o"]


def build(objects: list[Path], where: Path) -> bytes:
    (where / "scratch").mkdir(parents=True)
    linkers.link_objects({"flags": []}, "wasm", objects, where / "lib.wasm", scratch=where / "scratch")
    return (where / "lib.wasm").read_bytes()


@needs_emcc
def test_same_bytes_in_other_directories(objects: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copies").mkdir()
    copies = [Path(shutil.copy(path, tmp_path / "copies")) for path in objects[:2]]
    first = build(objects[:2], tmp_path / "a")
    assert ("env", "TVMFFIWasmSafeCall") in set(imports(first)) <= IMPORTS
    # Flags of the environment do not get in.
    monkeypatch.setenv("EMCC_CFLAGS", "-g4")
    assert first == build(copies[::-1], tmp_path / "a much longer directory name")
    assert str(tmp_path).encode() not in first


@needs_emcc
def test_a_link_that_leaves_more_undefined_is_refused(objects: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"no browser runtime provides: env\.further"):
        build(objects, tmp_path)
    assert not (tmp_path / "lib.wasm").exists()


@needs_emcc
def test_what_emcc_says_is_in_the_error(objects: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.o").write_bytes(b"no object")
    with pytest.raises(ToolchainError, match="emcc failed with exit code 1") as caught:
        build([tmp_path / "broken.o"], tmp_path / "a")
    assert "broken.o" in (caught.value.why or "")
