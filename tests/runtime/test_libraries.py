"""Which library belongs to a model directory, and which this machine can load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmbuild.errors import StoreError, UsageError
from llmbuild.runtime.libraries import find_library, why_not_here

ELF = {"x86_64": 62, "aarch64": 183}


@pytest.fixture(autouse=True)
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")


def elf(machine: str = "x86_64") -> bytes:
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + (3).to_bytes(2, "little") + ELF[machine].to_bytes(2, "little")


def macho(machine: int) -> bytes:
    return b"\xcf\xfa\xed\xfe" + machine.to_bytes(4, "little")


def dll(machine: int) -> bytes:
    return (
        b"MZ".ljust(0x3C, b"\0")
        + (0x80).to_bytes(4, "little").ljust(0x44, b"\0")
        + b"PE\0\0"
        + machine.to_bytes(2, "little")
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "dist/tiny-q4f32_1-MLC").mkdir(parents=True)
    (tmp_path / "dist/libs").mkdir()
    return tmp_path / "dist/tiny-q4f32_1-MLC"


def put(model: Path, name: str, content: bytes) -> Path:
    path = model.parent / "libs" / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("lib.so", elf(), None),
        ("lib.so", b"no library", None),
        ("lib.so", b"", None),
        ("lib.so", elf("aarch64"), "for aarch64 on Linux"),
        ("lib.so", elf()[:18] + b"\xff\xff", "for another processor on Linux"),
        ("lib.dylib", macho(0x0100000C), "for aarch64 on macOS"),
        ("lib.dylib", macho(0x01000007), "for x86_64 on macOS"),
        ("lib.dll", dll(0x8664), "for x86_64 on Windows"),
        ("lib.dll", b"MZ", "for another processor on Windows"),
        ("lib.tar", b"", "an archive of objects"),
        ("lib.wasm", b"", "for browsers"),
    ],
)
def test_what_a_library_is_for(tmp_path: Path, name: str, content: bytes, reason: str | None) -> None:
    (tmp_path / name).write_bytes(content)
    found = why_not_here(tmp_path / name)
    assert found is None if reason is None else found is not None and found.startswith(reason)


def test_a_library_with_a_record_is_for_another_device(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(elf())
    (tmp_path / "lib.json").write_text("{}")
    assert why_not_here(tmp_path / "lib.so") is None
    (tmp_path / "lib.so.json").write_text("{}")
    assert why_not_here(tmp_path / "lib.so") == "for another device than a CPU, and this TVM runs on the CPU"


def test_a_library_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the library cannot be read"):
        why_not_here(tmp_path)


def test_the_one_that_runs_here_is_found(model: Path) -> None:
    wanted = put(model, "tiny-q4f32_1-x86_64-linux-cpu.so", elf())
    put(model, "tiny-q4f32_1-phone.so", elf("aarch64"))
    put(model, "tiny-q4f32_1-cuda.so", elf())
    put(model, "tiny-q4f32_1-cuda.so.json", b"{}")
    put(model, "tiny-q4f16_1-x86_64-linux-cpu.so", elf())
    put(model, "tiny-q4f32_1-web.wasm", b"")
    put(model, "tiny-q4f32_1-note.txt", elf())
    assert find_library(model) == wanted


def test_a_model_with_a_longer_name_has_its_own(model: Path) -> None:
    """A model may be called as another with its scheme."""
    (model.parent / "tiny-q4f32_1-chat-q0f32-MLC").mkdir()
    wanted = put(model, "tiny-q4f32_1-cpu.so", elf())
    other = put(model, "tiny-q4f32_1-chat-q0f32-cpu.so", elf())
    assert find_library(model) == wanted
    assert find_library(model.parent / "tiny-q4f32_1-chat-q0f32-MLC") == other


def test_none_and_several(model: Path) -> None:
    with pytest.raises(UsageError, match="no library for this model"):
        find_library(model)
    put(model, "tiny-q4f32_1-cuda.so", elf())
    put(model, "tiny-q4f32_1-cuda.so.json", b"{}")
    put(model, "tiny-q4f32_1-phone.so", elf("aarch64"))
    with pytest.raises(UsageError, match="none of this model's libraries") as none:
        find_library(model)
    assert "tiny-q4f32_1-cuda.so is for another device" in str(none.value)
    assert "tiny-q4f32_1-phone.so is for aarch64" in str(none.value)
    put(model, "tiny-q4f32_1-one.so", elf())
    put(model, "tiny-q4f32_1-two.so", elf())
    with pytest.raises(UsageError, match="several libraries of this model") as several:
        find_library(model)
    assert "tiny-q4f32_1-one.so, tiny-q4f32_1-two.so" in str(several.value)


def test_a_model_without_libraries_beside_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no library for this model"):
        find_library(tmp_path)


def test_libraries_that_cannot_be_listed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(StoreError, match="the libraries cannot be listed"):
        find_library(model)
