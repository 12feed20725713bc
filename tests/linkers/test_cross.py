"""A library for every system, linked here and opened with an independent reader."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lief
import pytest

from llmbuild import linkers
from llmbuild.errors import ToolchainError
from llmbuild.linkers import symbols, tools
from llmbuild.programs import zig
from tests.helpers.objects import write_objects

ELF = {
    "x86_64-unknown-linux-gnu": lief.ELF.ARCH.X86_64,
    "aarch64-unknown-linux-gnu": lief.ELF.ARCH.AARCH64,
    "aarch64-linux-android": lief.ELF.ARCH.AARCH64,
}
MACHO = {
    "arm64-apple-macosx13.0.0": (lief.MachO.Header.CPU_TYPE.ARM64, lief.MachO.BuildVersion.PLATFORMS.MACOS, [13, 0, 0]),
    "x86_64-apple-macosx13.0.0": (
        lief.MachO.Header.CPU_TYPE.X86_64,
        lief.MachO.BuildVersion.PLATFORMS.MACOS,
        [13, 0, 0],
    ),
    "arm64-apple-ios17.0.0-macabi": (
        lief.MachO.Header.CPU_TYPE.ARM64,
        lief.MachO.BuildVersion.PLATFORMS.MAC_CATALYST,
        [17, 0, 0],
    ),
}
PE = {
    "x86_64-pc-windows-msvc": lief.PE.Header.MACHINE_TYPES.AMD64,
    "aarch64-pc-windows-msvc": lief.PE.Header.MACHINE_TYPES.ARM64,
}
KINDS = dict.fromkeys(ELF, "so") | dict.fromkeys(MACHO, "dylib") | dict.fromkeys(PE, "dll")

HAS_LLD = zig.zig("ld.lld") is not None or tools.lld("ld.lld") is not None
HAS_LD64 = tools.lld("ld64.lld") is not None
CROSS = "needs a linker for other systems: pip install 'llmbuild[cross]'"

pytestmark = pytest.mark.skipif(not HAS_LLD, reason=CROSS)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The objects of a triple, compiled once."""
    root = tmp_path_factory.mktemp("objects")
    return lambda triple, **more: _objects(root, triple, more)


@pytest.fixture(params=["zig", "path"])
def llvm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """LLVM's linker from the ziglang package, and the distribution's, which may be much older."""
    if request.param == "zig" and zig.zig("ld.lld") is None:
        pytest.skip(CROSS)
    if request.param == "path":
        if tools.lld("ld.lld") is None:
            pytest.skip("no LLVM linker on PATH (Debian: apt install lld)")
        monkeypatch.setattr(zig, "_program", lambda: None)
    return str(request.param)


def _objects(root: Path, triple: str, more: dict[str, Any]) -> list[Path]:
    out = root / "-".join((triple, *(f"{key}={value}" for key, value in sorted(more.items()))))
    return sorted(out.glob("*.o")) if out.is_dir() else write_objects(triple, out, **more)


def linked(objects: list[Path], triple: str, where: Path, **link: Any) -> Path:
    kind = KINDS.get(triple, "dll")
    scratch = where / "scratch"
    scratch.mkdir(parents=True)
    out = where / f"tiny.{kind}"
    link = {"triple": triple, "flags": [], **link}
    linkers.link_objects(link, kind, objects, out, scratch=scratch, name=f"tiny.{kind}")
    return out


@pytest.mark.parametrize("triple", ELF)
def test_elf(triple: str, objects: Any, tmp_path: Path, llvm: str) -> None:
    library = lief.ELF.parse(str(linked(objects(triple), triple, tmp_path, linker="lld")))
    assert library is not None
    assert library.header.machine_type == ELF[triple]
    assert library.header.file_type == lief.ELF.Header.FILE_TYPE.DYN
    exported = {str(symbol.name) for symbol in library.exported_symbols}
    assert {"__tvm_ffi__library_bin", "__tvm_ffi_scaled"} <= exported
    undefined = {str(symbol.name) for symbol in library.dynamic_symbols if symbol.shndx == 0} - {""}
    assert undefined == {"TVMFFIErrorSetRaisedFromCStrParts", "expf"}
    android = "android" in triple
    assert library.libraries == (["libc.so", "libm.so"] if android else ["libc.so.6", "libm.so.6"])
    assert library.has(lief.ELF.DynamicEntry.TAG.SONAME) == android
    assert not library.has(lief.ELF.DynamicEntry.TAG.RUNPATH)
    if android:
        assert library.get(lief.ELF.DynamicEntry.TAG.SONAME).name == "tiny.so"  # type: ignore[union-attr]
        pages = {s.alignment for s in library.segments if s.type == lief.ELF.Segment.TYPE.LOAD}
        assert pages == {16384}


@pytest.mark.parametrize("linker", ["lld", "zig"])
@pytest.mark.parametrize("triple", MACHO)
def test_macho(triple: str, linker: str, objects: Any, tmp_path: Path) -> None:
    if (linker == "lld" and not HAS_LD64) or (linker == "zig" and zig.zig("cc") is None):
        pytest.skip(f"{linker} is not here: pip install 'llmbuild[cross]', Debian: apt install lld")
    binary = lief.MachO.parse(str(linked(objects(triple), triple, tmp_path, linker=linker)))
    assert binary is not None and len(binary) == 1
    library = binary.at(0)
    assert library is not None
    machine, system, oldest = MACHO[triple]
    assert (library.header.cpu_type, library.header.file_type) == (machine, lief.MachO.Header.FILE_TYPE.DYLIB)
    assert (library.build_version.platform, library.build_version.minos) == (system, oldest)
    names = {kind.command: kind.name for kind in library.libraries}
    assert names == {
        lief.MachO.LoadCommand.TYPE.ID_DYLIB: "@rpath/tiny.dylib",
        lief.MachO.LoadCommand.TYPE.LOAD_DYLIB: "/usr/lib/libSystem.B.dylib",
    }
    exported = {str(symbol.name) for symbol in library.exported_symbols}
    assert {"___tvm_ffi__library_bin", "___tvm_ffi_scaled"} <= exported
    # What the loader binds; from libSystem only where it is named, and TVM's from wherever the process has it.
    bound = {str(binding.symbol.name) for binding in library.bindings if binding.symbol is not None}
    assert {"_expf", "_TVMFFIErrorSetRaisedFromCStrParts"} <= bound
    provided = {f"_{name}" for name in (*symbols.TVM_FFI, *symbols.MEMORY, *symbols.MATH, *symbols.APPLE)}
    assert bound <= provided | {"dyld_stub_binder"}
    assert library.has_uuid
    # Apple silicon runs no unsigned code.
    assert library.has_code_signature == (triple.startswith("arm64") or linker == "lld")


@pytest.mark.parametrize("triple", PE)
def test_pe(triple: str, objects: Any, tmp_path: Path, llvm: str) -> None:
    _check_dll(linked(objects(triple), triple, tmp_path), PE[triple])


@pytest.mark.parametrize("linker", ["zig", "mingw"])
def test_pe_of_mingw(linker: str, objects: Any, tmp_path: Path) -> None:
    if linker == "mingw" and shutil.which("x86_64-w64-mingw32-gcc") is None:
        pytest.skip("MinGW's gcc is not here: apt install gcc-mingw-w64-x86-64")
    triple = "x86_64-pc-windows-gnu"
    made = [linked(objects(triple), triple, tmp_path / name, linker=linker) for name in ("a", "another")]
    assert made[0].read_bytes() == made[1].read_bytes()
    if linker == "zig":
        _check_dll(made[0], lief.PE.Header.MACHINE_TYPES.AMD64)


def _check_dll(path: Path, machine: Any) -> None:
    library = lief.PE.parse(str(path))
    assert library is not None
    assert library.header.machine == machine
    assert library.header.has_characteristic(lief.PE.Header.CHARACTERISTICS.DLL)
    export = library.get_export()
    assert export is not None and export.name == "tiny.dll"
    assert {"__tvm_ffi__library_bin", "__tvm_ffi_scaled"} <= {str(entry.name) for entry in export.entries}
    assert {entry.name: {str(symbol.name) for symbol in entry.entries} for entry in library.imports} == {
        "tvm_ffi.dll": {"TVMFFIErrorSetRaisedFromCStrParts"},
        "ucrtbase.dll": {"expf"},
    }


def test_other_directories_and_processes_make_the_same_bytes(objects: Any, tmp_path: Path) -> None:
    here = {triple: _digest(linked(objects(triple), triple, tmp_path / "a" / triple)) for triple in KINDS}
    jobs = {triple: [str(path) for path in objects(triple)] for triple in KINDS}
    code = (
        "import json, sys; from pathlib import Path; from tests.linkers import test_cross as t\n"
        "jobs, root = json.loads(sys.argv[1]), Path(sys.argv[2])\n"
        "made = {k: t.linked([Path(p) for p in v], k, root / k) for k, v in jobs.items()}\n"
        "print(json.dumps({k: t._digest(v) for k, v in made.items()}))"
    )
    where = tmp_path / "a directory with a longer name"
    command = [sys.executable, "-c", code, json.dumps(jobs), str(where)]
    root = Path(__file__).parent.parent.parent
    there = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert json.loads(there) == here


def _digest(path: Path) -> str:
    data = path.read_bytes()
    assert b"/tmp/" not in data and str(Path.home()).encode() not in data
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-macosx13.0.0", "x86_64-pc-windows-msvc"])
def test_a_function_that_nothing_provides_is_found(triple: str, objects: Any, tmp_path: Path) -> None:
    if "apple" in triple and not HAS_LD64:
        pytest.skip("needs ld64.lld (Debian: apt install lld)")
    with pytest.raises(ToolchainError) as caught:
        linked(objects(triple, calls="no_such_function"), triple, tmp_path)
    assert "no_such_function" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_flags_for_a_compiler_do_for_a_linker(objects: Any, tmp_path: Path) -> None:
    triple = "aarch64-unknown-linux-gnu"
    path = linked(objects(triple), triple, tmp_path, linker="lld", flags=["-Wl,-z,now", "-Wl,-soname,own.so"])
    library = lief.ELF.parse(str(path))
    assert library is not None
    assert library.get(lief.ELF.DynamicEntry.TAG.SONAME).name == "own.so"  # type: ignore[union-attr]
    assert lief.ELF.DynamicEntryFlags.FLAG.BIND_NOW in library.get(lief.ELF.DynamicEntry.TAG.FLAGS).flags  # type: ignore[union-attr]


def test_variables_of_the_environment_add_nothing(
    objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triple = "x86_64-pc-windows-msvc"
    plain = linked(objects(triple), triple, tmp_path / "a").read_bytes()
    monkeypatch.setenv("LINK", "/base:0x190000000")
    monkeypatch.setenv("_LINK_", "/debug")
    assert linked(objects(triple), triple, tmp_path / "b").read_bytes() == plain


def test_a_library_made_by_lld_runs(objects: Any, tmp_path: Path) -> None:
    import numpy as np
    import tvm

    triple = "x86_64-unknown-linux-gnu"
    library = tvm.runtime.load_module(str(linked(objects(triple), triple, tmp_path, linker="lld")))
    machine = tvm.relax.VirtualMachine(library, tvm.cpu())
    x = np.arange(8, dtype="float32") / 8
    np.testing.assert_allclose(machine["scaled_exp"](tvm.runtime.tensor(x)).numpy(), np.exp(x) * 2, rtol=1e-6)
