"""Archives of two models in one binary: no symbol clashes, and each model is found by its prefix and called."""

from __future__ import annotations

import ctypes
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild import linkers
from llmbuild.linkers import tools
from tests.helpers.objects import FUNCTION, write_objects

MODELS = {"llama_q4f16_1_": 2.0, "qwen2_q4f32_1_": 3.0}


def unpacked_archives(triple: str, where: Path) -> list[Path]:
    """What an application does: unpack the archive of each model into one directory."""
    for prefix, scale in MODELS.items():
        archive = where / f"{prefix}.tar"
        objects = write_objects(triple, where / prefix, scale=scale, prefix=prefix)
        linkers.link_objects({"triple": triple}, "tar", objects, archive, scratch=where, prefix=prefix)
        with tarfile.open(archive) as tar:
            tar.extractall(where / "app", filter="data")
    found = sorted((where / "app").iterdir())
    assert [path.name for path in found] == sorted(
        f"{prefix}{name}" for prefix in MODELS for name in ("lib0.o", "devc.o")
    )
    return found


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_two_models_in_one_binary_are_both_called(tmp_path: Path) -> None:
    import tvm
    import tvm_ffi

    triple = "x86_64-unknown-linux-gnu"
    (tmp_path / "scratch").mkdir()
    binary = tmp_path / "application.so"
    linkers.link_objects(
        {"triple": triple}, "so", unpacked_archives(triple, tmp_path), binary, scratch=tmp_path / "scratch"
    )
    # The libraries register themselves when the binary is loaded.
    ctypes.CDLL(str(binary), mode=ctypes.RTLD_GLOBAL)
    x = np.arange(8, dtype="float32") / 8
    for prefix, scale in MODELS.items():
        machine: Any = tvm.relax.VirtualMachine(tvm_ffi.system_lib(prefix), tvm.cpu())
        result = machine[FUNCTION](tvm.runtime.tensor(x)).numpy()
        np.testing.assert_allclose(result, np.exp(x) * scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("triple", "artifact"),
    [
        ("aarch64-linux-android", "so"),
        ("arm64-apple-ios17.0.0-macabi", "dylib"),
        ("x86_64-pc-windows-msvc", "dll"),
        ("aarch64-pc-windows-msvc", "dll"),
    ],
)
def test_two_models_in_one_binary_of_another_system(triple: str, artifact: str, tmp_path: Path) -> None:
    if tools.lld({"so": "ld.lld", "dylib": "ld64.lld", "dll": "lld-link"}[artifact]) is None:
        pytest.skip("needs LLVM's linker on PATH (Debian: apt install lld)")
    (tmp_path / "scratch").mkdir()
    out = tmp_path / f"application.{artifact}"
    link = {"triple": triple, "linker": "lld"}
    linkers.link_objects(link, artifact, unpacked_archives(triple, tmp_path), out, scratch=tmp_path / "scratch")
    names = exported(out)
    for prefix in MODELS:
        assert {f"{prefix}__tvm_ffi__library_bin", f"__tvm_ffi_{prefix}scaled"} <= names


def exported(path: Path) -> set[str]:
    """The exported symbols as C has them."""
    import lief

    binary = lief.parse(str(path))
    if isinstance(binary, lief.PE.Binary):
        return {str(function.name) for function in binary.exported_functions}
    assert isinstance(binary, lief.ELF.Binary | lief.MachO.Binary)
    names = (str(symbol.name) for symbol in binary.exported_symbols)
    return {name.removeprefix("_") if isinstance(binary, lief.MachO.Binary) else name for name in names}
