"""Which tool links for which triple, what it is called in keys, and what a missing one says; the tools are stand-ins."""

from __future__ import annotations

import json
import platform
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmbuild import linkers
from llmbuild.errors import ExitCode, ToolchainError, UsageError
from llmbuild.linkers import elf, macho, pe, tools
from llmbuild.programs import zig

ANDROID = {"triple": "aarch64-linux-android"}
LINUX = {"triple": "aarch64-unknown-linux-gnu" if platform.machine() == "x86_64" else "x86_64-unknown-linux-gnu"}
MAC = {"triple": "arm64-apple-macosx13.0.0"}
MSVC = {"triple": "x86_64-pc-windows-msvc"}
GNU = {"triple": "x86_64-pc-windows-gnu"}

# Writes its arguments and what it was called by to calls.json beside it; makes what it is asked to make with -o or /out:.
STAND_IN = """\
#!{python}
import json, os, sys
from pathlib import Path
if sys.argv[1:] in (["--version"], ["version"]) or sys.argv[-1:] == ["--version"]:
    print("stand-in 1.2.3")
    sys.exit()
calls = Path(__file__).parent / "calls.json"
known = json.loads(calls.read_text()) if calls.exists() else []
calls.write_text(json.dumps([*known, sys.argv[1:]]))
words = sys.argv[1:]
out = next((word[5:] for word in words if word.startswith("/out:")), None) or words[words.index("-o") + 1]
Path(out).write_bytes(b"made")
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A machine without any tool; call it with names to put stand-ins on its PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    for variable in ("CC", *elf.NDK_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(zig, "_program", lambda: None)
    monkeypatch.setattr(tools, "DEBIAN", tmp_path / "none")

    def put(*names: str) -> Path:
        for name in names:
            stand_in(place / name)
        return place

    return put


def stand_in(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def link(link_part: dict[str, str], artifact: str, where: Path) -> list[list[str]]:
    """Link with the stand-in; returns what it was called with."""
    (where / "scratch").mkdir()
    (where / "a.o").write_bytes(b"object")
    linkers.link_objects(
        {"flags": ["--more"], **link_part},
        artifact,
        [where / "a.o"],
        where / "out",
        scratch=where / "scratch",
        name=f"m.{artifact}",
    )
    assert (where / "out").read_bytes() == b"made"
    calls = json.loads(next(where.rglob("calls.json")).read_text())
    assert isinstance(calls, list)
    assert str(where) not in json.dumps(calls)  # No paths of this machine: they could get into the bytes.
    return calls


@pytest.mark.parametrize(
    ("link_part", "artifact", "what", "fix"),
    [
        (LINUX, "so", "no linker for", "pip install 'llmbuild\\[cross\\]'"),
        (ANDROID, "so", "no linker for aarch64 Android", "ANDROID_NDK"),
        (MAC, "dylib", "no linker for macOS", "pip install 'llmbuild\\[cross\\]'.*apt install lld"),
        (MSVC, "dll", "no linker for x86_64 Windows", "pip install 'llmbuild\\[cross\\]'"),
        (GNU, "dll", "no linker for x86_64 Windows", "apt install gcc-mingw-w64"),
        ({**LINUX, "linker": "lld"}, "so", "link.linker is 'lld', which is not here", "pip install"),
    ],
)
def test_a_missing_tool_is_said_by_identity_with_the_command_that_installs_it(
    bare: Callable[..., Path], link_part: dict[str, str], artifact: str, what: str, fix: str
) -> None:
    with pytest.raises(ToolchainError, match=what) as caught:
        linkers.identity(link_part, artifact)
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    caught.match(fix)


@pytest.mark.parametrize(
    ("link_part", "artifact", "there", "taken"),
    [
        ({"triple": f"{platform.machine()}-unknown-linux-gnu"}, "so", ("cc", "ld.lld"), "cc"),
        ({}, "so", ("gcc", "ld.lld"), "gcc"),
        ({"triple": f"{platform.machine()}-unknown-linux-gnu"}, "so", ("ld.lld",), "ld.lld"),
        (LINUX, "so", ("cc", "ld.lld", "aarch64-linux-gnu-gcc", "x86_64-linux-gnu-gcc"), "ld.lld"),
        (LINUX, "so", ("cc", f"{LINUX['triple'].split('-')[0]}-linux-gnu-gcc"), "-linux-gnu-gcc"),
        ({**LINUX, "compiler": "my-cc"}, "so", ("ld.lld", "my-cc"), "my-cc"),
        (ANDROID, "so", ("cc", "ld.lld"), "ld.lld"),
        # The same program under another name.
        (MAC, "dylib", ("ld.lld",), "ld64.lld"),
        (MSVC, "dll", ("ld64.lld", "x86_64-w64-mingw32-gcc"), "lld-link"),
        (GNU, "dll", ("lld-link", "x86_64-w64-mingw32-gcc"), "x86_64-w64-mingw32-gcc"),
    ],
)
def test_the_tool_for_a_triple(
    bare: Callable[..., Path], link_part: dict[str, str], artifact: str, there: tuple[str, ...], taken: str
) -> None:
    place = bare(*there)
    said = linkers.identity(link_part, artifact)
    assert said.endswith(f"{taken}: stand-in 1.2.3")
    assert str(place) not in said


def test_zig_comes_before_a_linker_on_path(bare: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    program = str(stand_in(bare("ld.lld", "ld64.lld", "lld-link") / "inside" / "zig"))
    monkeypatch.setattr(zig, "_program", lambda: program)
    monkeypatch.setattr(zig, "_version", lambda _: "0.17.1")
    assert linkers.identity(LINUX, "so") == "zig ld.lld: 0.17.1"
    assert linkers.identity(MSVC, "dll") == "zig lld-link: 0.17.1"
    assert linkers.identity(GNU, "dll") == "zig cc: 0.17.1"
    # zig has no ld64.lld, and its own linker for Mach-O comes second.
    assert linkers.identity(MAC, "dylib") == "ld64.lld: stand-in 1.2.3"


def test_the_ndk_links_for_android_where_a_variable_names_one(
    bare: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare("ld.lld")
    ndk = tmp_path / "ndk"
    stand_in(ndk / "toolchains/llvm/prebuilt/linux-x86_64/bin/clang")
    (ndk / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 27.2.12479018\n")
    monkeypatch.setenv("ANDROID_NDK_HOME", str(ndk))
    named = "NDK 27.2.12479018 clang --target=aarch64-linux-android24: stand-in 1.2.3"
    assert linkers.identity(ANDROID, "so") == named
    assert "android31" in linkers.identity({"triple": "aarch64-linux-android31"}, "so")
    (call,) = link(ANDROID, "so", tmp_path)
    assert call[0] == "--target=aarch64-linux-android24"
    assert {"-shared", "-Wl,-soname,m.so", "-Wl,-z,max-page-size=16384", "-Wl,--build-id=none", "--more"} <= set(call)


def test_a_variable_that_names_no_ndk_is_an_error(
    bare: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare("ld.lld")
    monkeypatch.setenv("ANDROID_NDK", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"\$ANDROID_NDK names no Android NDK"):
        linkers.identity(ANDROID, "so")


def test_xcode_links_on_a_mac(bare: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare("xcrun", "ld64.lld")
    monkeypatch.setattr(macho, "sys", SimpleNamespace(platform="darwin"))
    assert linkers.identity(MAC, "dylib") == "xcode clang: stand-in 1.2.3"
    (call,) = link({"triple": "arm64-apple-ios17.0.0-macabi", "minimum-os": "17.4"}, "dylib", tmp_path)
    assert call[:5] == ["-sdk", "macosx", "clang", "-target", "arm64-apple-ios17.4-macabi"]
    assert {"-dynamiclib", "-Wl,-install_name,@rpath/m.dylib", "-Wl,-undefined,dynamic_lookup", "--more"} <= set(call)


def test_msvc_links_on_windows(bare: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare("link.exe", "lld-link")
    monkeypatch.setattr(pe, "sys", SimpleNamespace(platform="win32"))
    assert linkers.identity(MSVC, "dll").startswith("lld-link")  # Other programs are called link.exe.
    monkeypatch.setenv("VCTOOLSINSTALLDIR", "C:\\VC")
    monkeypatch.setenv("VCTOOLSVERSION", "14.44.35207")
    assert linkers.identity(MSVC, "dll") == "link.exe: MSVC 14.44.35207"
    *libraries, call = link(MSVC, "dll", tmp_path)
    assert [words[0] for words in libraries] == ["/lib"] * 3
    assert {"/dll", "/machine:x64", "/brepro", "/out:m.dll", "a.o", "tvm_ffi.lib", "ucrtbase.lib", "--more"} <= set(
        call
    )


def test_mingw_gets_an_import_library_of_tvm_ffi(bare: Callable[..., Path], tmp_path: Path) -> None:
    bare("x86_64-w64-mingw32-gcc")
    (tmp_path / "first").mkdir()
    with pytest.raises(ToolchainError, match="dlltool is not on PATH"):
        link(GNU, "dll", tmp_path / "first")
    bare("x86_64-w64-mingw32-dlltool").joinpath("x86_64-w64-mingw32-dlltool").write_text(
        "#!/bin/sh\n: > libtvm_ffi.a\n"
    )
    (call,) = link(GNU, "dll", tmp_path)
    assert {"-Wl,--no-insert-timestamp", "-Wl,--export-all-symbols", "libtvm_ffi.a", "--more"} <= set(call)


@pytest.mark.parametrize(
    ("link_part", "artifact", "what"),
    [
        ({**LINUX, "linker": "msvc"}, "so", "'msvc' links no shared object"),
        ({**MAC, "linker": "ndk"}, "dylib", "'ndk' links no .dylib"),
        ({**MSVC, "linker": "mingw"}, "dll", "'mingw' does not link a .dll"),
        ({**GNU, "linker": "lld"}, "dll", "'lld' does not link a .dll"),
        ({"triple": "riscv32-unknown-none"}, "so", "names no system"),
        (LINUX, "dylib", "no .dylib for"),
        (LINUX, "dll", "no .dll for"),
        ({}, "dylib", "a .dylib needs a triple"),
        ({}, "dll", "no .dll for 'no triple'"),
    ],
)
def test_a_linker_that_does_not_fit_is_a_mistake_of_the_target(
    link_part: dict[str, str], artifact: str, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        linkers.identity(link_part, artifact)


@pytest.mark.parametrize(
    ("link_part", "expected"),
    [
        (MAC, ("arm64", "macos", "13.0")),
        ({**MAC, "minimum-os": "14"}, ("arm64", "macos", "14.0")),
        ({"triple": "x86_64-apple-darwin22.1"}, ("x86_64", "macos", "11.0")),
        ({"triple": "arm64-apple-ios17.2.0-macabi"}, ("arm64", "mac-catalyst", "17.2")),
    ],
)
def test_the_oldest_system(link_part: dict[str, str], expected: tuple[str, str, str]) -> None:
    assert macho.target(link_part) == expected


@pytest.mark.parametrize(
    ("link_part", "artifact", "carries"),
    [(MAC, "dylib", True), (MSVC, "dll", True), (ANDROID, "so", True), (LINUX, "so", False), (ANDROID, "tar", False)],
)
def test_which_artifacts_hold_their_own_name(link_part: dict[str, str], artifact: str, carries: bool) -> None:
    assert linkers.carries_name(link_part, artifact) is carries


def test_a_tool_that_does_not_run_is_said(bare: Callable[..., Path]) -> None:
    bare("ld.lld").joinpath("ld.lld").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ToolchainError, match="does not run"):
        linkers.identity(LINUX, "so")
