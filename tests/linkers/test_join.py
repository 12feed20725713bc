"""Archives of several libraries: the same bytes as LLVM's `ar` writes, and each model's symbols once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from llmbuild import linkers
from llmbuild.errors import InputError, UsageError
from llmbuild.linkers import join, tools
from llmbuild.linkers.archive import write
from llmbuild.linkers.join import join_archives
from llmbuild.linkers.object_file import read_object
from llmbuild.programs.run import run_tool
from llmbuild.programs.zig import zig
from tests.helpers.objects import write_objects

ANDROID, PHONE = "aarch64-linux-android", "arm64-apple-ios17.0.0"
MODELS = {"llama_q4f16_1_": 2.0, "qwen2_q4f32_1_": 3.0}
FORMATS = {ANDROID: "gnu", PHONE: "darwin"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two models' libraries for each system, as `<triple>/<prefix>.tar`."""
    root = tmp_path_factory.mktemp("libraries")
    for triple in FORMATS:
        for prefix, scale in MODELS.items():
            where = root / triple / prefix
            objects = write_objects(triple, where, scale=scale, prefix=prefix)
            linkers.link_objects({}, "tar", objects, root / triple / f"{prefix}.tar", scratch=where, prefix=prefix)
    return root


def libraries(places: Path, triple: str) -> dict[str, Path]:
    return {prefix: places / triple / f"{prefix}.tar" for prefix in MODELS}


@cache
def archiver() -> tuple[str, ...] | None:
    found = shutil.which("llvm-ar")
    if found is not None:
        return (found,)
    tool = zig("ar")
    return None if tool is None else tool.command


@pytest.mark.parametrize("triple", FORMATS)
@pytest.mark.skipif(archiver() is None, reason="needs llvm-ar, or zig (the extra cross)")
def test_the_bytes_are_those_of_llvms_archiver(triple: str, places: Path, tmp_path: Path) -> None:
    for archive in libraries(places, triple).values():
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path / "objects", filter="data")
    objects = sorted((tmp_path / "objects").iterdir())
    assert len(objects) == 4
    for path in objects:
        path.chmod(0o644)
    command = [*(archiver() or ()), f"--format={FORMATS[triple]}", "rcsD", str(tmp_path / "theirs.a")]
    subprocess.run([*command, *map(str, objects)], check=True)
    join_archives(libraries(places, triple), tmp_path / "ours.a")
    assert (tmp_path / "ours.a").read_bytes() == (tmp_path / "theirs.a").read_bytes()


@pytest.mark.parametrize("triple", FORMATS)
def test_the_order_of_the_libraries_does_not_matter(triple: str, places: Path, tmp_path: Path) -> None:
    found = libraries(places, triple)
    join_archives(found, tmp_path / "1.a")
    join_archives({f"other {name}": found[name] for name in reversed(found)}, tmp_path / "2.a")
    assert (tmp_path / "1.a").read_bytes() == (tmp_path / "2.a").read_bytes()


@pytest.mark.parametrize("triple", FORMATS)
def test_each_models_symbols_are_there_once(triple: str, places: Path, tmp_path: Path) -> None:
    join_archives(libraries(places, triple), tmp_path / "libmodel.a")
    index = symbols(tmp_path / "libmodel.a")
    underscore = "_" if triple == PHONE else ""
    for prefix in MODELS:
        # MLC's rule for a library that its configuration calls by the prefix without the last underscore.
        model_lib = prefix.removesuffix("_")
        assert index[f"{underscore}{model_lib.replace('-', '_')}___tvm_ffi__library_bin"] == 1
        assert index[f"{underscore}__tvm_ffi_{prefix}scaled"] == 1
    twice = {name for name, count in index.items() if count > 1}
    assert twice == {f"{underscore}{name}" for name in ("__tvm_ffi_main", "__truncsfhf2", "__extendhfsf2")}


def symbols(archive: Path) -> Counter[str]:
    """The defined external symbols by lief, which reads each member on its own."""
    import lief

    data, at, found = archive.read_bytes(), 8, Counter[str]()
    while at < len(data):
        name, size = data[at : at + 16].decode().strip(), int(data[at + 48 : at + 58])
        member = data[at + 60 : at + 60 + size]
        if (long := re.fullmatch(r"#1/(\d+)", name)) is not None:
            name, member = member[: int(long[1])].rstrip(b"\0").decode(), member[int(long[1]) :]
        if name not in ("/", "//", "__.SYMDEF"):
            binary = lief.parse(member)
            assert isinstance(binary, lief.ELF.Binary | lief.MachO.Binary)
            found.update(str(symbol.name) for symbol in binary.symbols if is_defined(symbol))
        at += 60 + size + size % 2
    return found


def is_defined(symbol: object) -> bool:
    import lief

    if isinstance(symbol, lief.ELF.Symbol):
        return symbol.binding != lief.ELF.Symbol.BINDING.LOCAL and symbol.shndx != 0
    assert isinstance(symbol, lief.MachO.Symbol)
    # External and of a section.
    return symbol.raw_type & 0x01 != 0 and symbol.raw_type & 0x0E == 0x0E


@pytest.mark.parametrize("triple", FORMATS)
def test_a_linker_takes_members_by_the_index(triple: str, places: Path, tmp_path: Path) -> None:
    linker = tools.lld("ld.lld" if triple == ANDROID else "ld64.lld")
    if linker is None:
        pytest.skip("needs LLVM's linker on PATH (Debian: apt install lld)")
    join_archives(libraries(places, triple), tmp_path / "libmodel.a")
    wanted = "qwen2_q4f32_1___tvm_ffi__library_bin"
    if triple == ANDROID:
        arguments = ["-m", "aarch64linux", "-shared", "-u", wanted]
    else:
        version = ["-platform_version", "ios", "17.0", "17.0"]
        arguments = ["-arch", "arm64", *version, "-dylib", "-undefined", "dynamic_lookup", "-u", f"_{wanted}"]
    run_tool(linker, [*arguments, "-o", "lib", "libmodel.a"], tmp_path, makes="lib")
    linked = (tmp_path / "lib").read_bytes()
    assert wanted.encode() in linked
    assert b"llama_q4f16_1___tvm_ffi__library_bin" not in linked


def test_names_of_any_length(tmp_path: Path, places: Path) -> None:
    """Both spellings of a member's name, and data of odd sizes."""
    objects = []
    for number, name in enumerate(("a.o", "sixteen_chars_.o", "fifteen_chars.o")):
        objects.append(tmp_path / name)
        source = places / ANDROID / "llama_q4f16_1_" / "devc.o"
        # Only the first one may have symbols, for the others are the same object; the rest of a file is not read.
        data = source.read_bytes() if number == 0 else elf_without_symbols() + b"x" * number
        objects[-1].write_bytes(data)
    write(objects, tmp_path / "lib.tar")
    join_archives({"lib": tmp_path / "lib.tar"}, tmp_path / "lib.a")
    listed = subprocess.run(["ar", "t", str(tmp_path / "lib.a")], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["a.o", "fifteen_chars.o", "sixteen_chars_.o"]


def elf_without_symbols() -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + (1).to_bytes(2, "little") + (183).to_bytes(2, "little") + bytes(44)


def test_libraries_with_the_same_prefix(places: Path, tmp_path: Path) -> None:
    (same,) = {path for name, path in libraries(places, PHONE).items() if name.startswith("llama")}
    with pytest.raises(UsageError) as caught:
        join_archives({"smol-q4f16_1-iphone": same, "tiny-q4f16_1-iphone": same}, tmp_path / "libmodel.a")
    assert str(caught.value) == (
        "'smol-q4f16_1-iphone' and 'tiny-q4f16_1-iphone' both define 'llama_q4f16_1___tvm_ffi__library_bin'\n"
        "  why: an application links both, and a linker takes a symbol once\n"
        '  fix: write system-lib-prefix = "{model}_{quantization}_" in the table of the platform'
    )
    assert not (tmp_path / "libmodel.a").exists()


def test_libraries_for_two_systems(places: Path, tmp_path: Path) -> None:
    llama, qwen2 = MODELS
    both = {"a": libraries(places, ANDROID)[llama], "b": libraries(places, PHONE)[qwen2]}
    with pytest.raises(UsageError, match="'a' and 'b' do not go into one archive") as caught:
        join_archives(both, tmp_path / "libmodel.a")
    assert caught.value.why == "one is ELF of aarch64, the other Mach-O of arm64 for iOS"


def test_what_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"no archive")
    with pytest.raises(InputError, match=re.escape("the library is no .tar archive")):
        join_archives({"no": tmp_path / "no.tar"}, tmp_path / "libmodel.a")
    (tmp_path / "lib0.o").write_bytes(b"no object")
    write([tmp_path / "lib0.o"], tmp_path / "text.tar")
    with pytest.raises(InputError, match="no object that a static archive can have") as caught:
        join_archives({"text": tmp_path / "text.tar"}, tmp_path / "libmodel.a")
    assert caught.value.where == "text: lib0.o"
    write([], tmp_path / "empty.tar")
    with pytest.raises(InputError, match="no objects to join"):
        join_archives({"empty": tmp_path / "empty.tar"}, tmp_path / "libmodel.a")
    with tarfile.open(tmp_path / "folder.tar", "w") as tar:
        entry = tarfile.TarInfo("folder")
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    with pytest.raises(InputError, match="a member that is no file"):
        join_archives({"folder": tmp_path / "folder.tar"}, tmp_path / "libmodel.a")


def test_an_archive_that_is_too_large(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "LARGEST", 1000)
    for triple in FORMATS:
        with pytest.raises(UsageError, match="the archive would have"):
            join_archives(libraries(places, triple), tmp_path / "libmodel.a")


@pytest.mark.parametrize(
    ("triple", "machine"), [("armv7a-linux-androideabi21", "arm"), ("x86_64-linux-android", "x86_64")]
)
def test_other_processors(triple: str, machine: str, tmp_path: Path) -> None:
    """Objects of 32 bits, and those of an emulator."""
    objects = write_objects(triple, tmp_path, prefix="m_")
    names: set[str] = set()
    for path in objects:
        found = read_object(path.read_bytes(), path.name)
        assert (found.format, found.machine) == ("ELF", machine)
        names |= {symbol.name for symbol in found.symbols if not symbol.weak}
    assert {"m___tvm_ffi__library_bin", "__tvm_ffi_m_scaled"} <= names


@pytest.mark.parametrize("triple", FORMATS)
def test_damaged_objects(triple: str, places: Path) -> None:
    """Cut or changed anywhere, an object is read or is one clear error."""
    data = (places / triple / "llama_q4f16_1_" / "lib0.o").read_bytes()
    errors = 0
    for at in [*range(4, 200, 3), *range(200, len(data), 501)]:
        changed = bytearray(data)
        changed[at] ^= 0xFF
        for damaged in (data[:at], bytes(changed)):
            try:
                read_object(damaged, "lib0.o")
            except InputError:
                errors += 1
    assert errors > 50


@pytest.mark.skipif(sys.platform == "win32" or shutil.which("nm") is None, reason="needs binutils")
def test_the_index_as_binutils_reads_it(places: Path, tmp_path: Path) -> None:
    join_archives(libraries(places, ANDROID), tmp_path / "libmodel.a")
    text = subprocess.run(
        ["nm", "--print-armap", str(tmp_path / "libmodel.a")], capture_output=True, text=True, check=False
    ).stdout
    assert "qwen2_q4f32_1___tvm_ffi__library_bin in qwen2_q4f32_1_devc.o" in text
    assert "__tvm_ffi_llama_q4f16_1_scaled in llama_q4f16_1_lib0.o" in text
