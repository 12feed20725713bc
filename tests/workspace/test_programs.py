"""What decides a program's output is in its identity by content: one other byte in a part is another key.

The programs here are small scripts in a temporary directory that answer as the real ones do.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from llmbuild.canonical import Json, digest_file
from llmbuild.compiler.device_code.nvcc import find_nvcc
from llmbuild.compiler.device_code.nvrtc import Nvrtc
from llmbuild.errors import ToolchainError
from llmbuild.plan.reasons import ToolChanged, sentence, spoken
from llmbuild.programs.parts import FileTree, Parts, program_parts
from llmbuild.programs.run import Tool
from llmbuild.workspace.platform_tools import Machine
from llmbuild.workspace.programs import Programs
from llmbuild.workspace.tool_identities import Toolchain
from llmbuild.workspace.trust import Trust

LINUX: Mapping[str, Json] = {"flags": []}


class Contents:
    """The digest of each file as it is now."""

    def digest(self, path: Path) -> str:
        return digest_file(path)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def c_compiler(root: Path) -> Path:
    """A C compiler with its own linker and start files; it finds them relative to itself, as GCC does."""
    for name in ("ld", "collect2"):
        script(root / "libexec" / name, f"echo {name} 2.40")
    objects = ("crtbeginS.o", "crtendS.o", "libgcc.a", "libgcc_s.so", "liblto_plugin.so", "specs", "unrelated.o")
    for name in objects:
        (root / "lib").mkdir(exist_ok=True)
        (root / "lib" / name).write_bytes(name.encode())
    answer = [
        'here=$(cd "$(dirname "$0")/.." && pwd)',
        'for word; do case "$word" in -B*) here=${word#-B};; esac; done',
        'case "$word" in',
        '-print-search-dirs) echo "programs: =$here/libexec/"; echo "libraries: =$here/lib/";;',
        '*) echo "cc 12.2";;',
        "esac",
    ]
    return script(root / "bin" / "cc", "\n".join(answer))


def emscripten(root: Path) -> Path:
    """An Emscripten with LLVM and Binaryen of its own."""
    for name in ("llvm/clang", "llvm/wasm-ld", "llvm/clang-15", "binaryen/bin/wasm-opt"):
        script(root / name, "exit 0")
    for name in (
        "emcc.py",
        "tools/shared.py",
        "system/lib/libc.c",
        "cache/sysroot/libc.a",
        "src/library.js",
        "tests/test.py",
        "../lib/clang/15/include/stddef.h",
    ):
        (root / "emscripten" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "emscripten" / name).write_text(name)
    (root / "emscripten/.emscripten").write_text(
        f"LLVM_ROOT = '{root}/llvm'\nBINARYEN_ROOT = \"{root}/binaryen\"\nFROZEN_CACHE = True\n"
    )
    return script(root / "emscripten" / "emcc", 'echo "emcc (Emscripten gcc/clang-like replacement) 3.1.6"')


def nvidia(root: Path) -> Path:
    for name in ("bin/ptxas", "bin/fatbinary", "bin/cudafe++", "nvvm/bin/cicc"):
        script(root / name, "exit 0")
    for name in ("include/cuda_fp16.h", "nvvm/libdevice/libdevice.10.bc", "doc/readme.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return script(root / "bin" / "nvcc", 'echo "V13.0.88"')


def identity(link: Mapping[str, Json], artifact: str = "so") -> str:
    return Machine(Toolchain(Contents()), Trust(Path("/"), everything=True)).linker(link, artifact)


def parts_flip(root: Path, flips: Mapping[str, bool], identify: Callable[[], str]) -> None:
    """Change each file in turn: the identity changes where it must, its version never."""
    for name, counts in flips.items():
        before = identify()
        path = root / name
        data = path.read_bytes()
        path.write_bytes(data + b"\n# another build of it\n")
        after = identify()
        assert (before != after) is counts, name
        assert spoken(before) == spoken(after)
        path.write_bytes(data)
        assert identify() == before


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question is asked anew: in a process a tool's answer is kept."""
    from llmbuild.programs import run

    plain = run.ask_tool.__wrapped__
    for module in (
        "programs.run",
        "programs.parts",
        "linkers.tools",
        "emscripten.toolchain",
        "compiler.device_code.nvcc",
    ):
        monkeypatch.setattr(f"llmbuild.{module}.ask_tool", plain)


def test_a_c_compiler_with_what_it_runs_and_links_in(tmp_path: Path, asked: None) -> None:
    cc = c_compiler(tmp_path / "gcc")
    flips = {
        "bin/cc": True,
        "libexec/ld": True,
        "libexec/collect2": True,
        "lib/crtbeginS.o": True,
        "lib/crtendS.o": True,
        "lib/specs": True,
    }
    flips |= dict.fromkeys(("lib/libgcc.a", "lib/libgcc_s.so", "lib/liblto_plugin.so"), True) | {
        "lib/unrelated.o": False
    }
    parts_flip(tmp_path / "gcc", flips, lambda: identity({**LINUX, "compiler": str(cc)}))


def test_a_wrapper_and_what_it_wraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: None) -> None:
    c_compiler(tmp_path / "gcc")
    script(tmp_path / "wrapped" / "bin" / "cache", 'exec "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/wrapped/bin:{tmp_path}/gcc/bin", prepend=":")
    flips = {"wrapped/bin/cache": True, "gcc/bin/cc": True, "gcc/libexec/ld": True}
    parts_flip(tmp_path, flips, lambda: identity({**LINUX, "compiler": ["cache", "cc"]}))
    monkeypatch.setenv("CC", "cache cc")
    parts_flip(tmp_path, flips, lambda: identity(LINUX))


def test_a_linker_that_flags_choose(tmp_path: Path, asked: None) -> None:
    cc = c_compiler(tmp_path / "gcc")
    script(tmp_path / "gcc/libexec/ld.gold", "echo gold")
    link = {**LINUX, "compiler": str(cc)}
    parts_flip(tmp_path / "gcc", {"libexec/ld.gold": False}, lambda: identity(link))
    parts_flip(tmp_path / "gcc", {"libexec/ld.gold": True}, lambda: identity({**link, "flags": ["-fuse-ld=gold"]}))


def test_what_flags_name(tmp_path: Path, asked: None) -> None:
    cc = c_compiler(tmp_path / "gcc")
    c_compiler(tmp_path / "other")
    script(tmp_path / "tools/ld.mine", "exit 0")
    for name in ("more/libmore.a", "more/unused.a", "exports.map", "extra.o"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    flags = [f"-B{tmp_path}/other", f"-L{tmp_path}/more", "-lmore", f"-Wl,--version-script={tmp_path}/exports.map"]
    flags += [f"{tmp_path}/extra.o", f"--ld-path={tmp_path}/tools/ld.mine"]
    link = {"flags": flags, "compiler": str(cc)}
    used = ("other/libexec/ld", "other/lib/crtbeginS.o", "more/libmore.a", "exports.map", "extra.o", "tools/ld.mine")
    flips = dict.fromkeys(used, True) | {"more/unused.a": False, "gcc/libexec/ld": False}
    parts_flip(tmp_path, flips, lambda: identity(link))


@pytest.mark.parametrize(
    "flags",
    [
        ["-T{}/named"],
        ["-T", "{}/named"],
        ["-Wl,-T,{}/named"],
        ["-Wl,-L,{},-l:named"],
        ["-L", "{}", "-l", ":named"],
        ["@{}/words"],
        ["-Wl,@{}/words"],
    ],
)
@pytest.mark.parametrize("linker", ["cc", "lld", "emcc"])
def test_ways_to_name_a_file(linker: str, flags: list[str], tmp_path: Path, asked: None) -> None:
    cc = c_compiler(tmp_path / "gcc")
    emcc = emscripten(tmp_path / "em")
    (tmp_path / "named").write_text("named")
    (tmp_path / "words").write_text(f"-s '-T{tmp_path}/named' @{tmp_path}/words")
    link: dict[str, Json] = {"flags": [flag.format(tmp_path) for flag in flags]}
    link |= {"cc": {"compiler": str(cc)}, "lld": {"linker": "lld"}, "emcc": {"compiler": str(emcc)}}[linker]
    names = ["named", "words"] if "words" in flags[0] else ["named"]
    parts_flip(tmp_path, dict.fromkeys(names, True), lambda: identity(link, "wasm" if linker == "emcc" else "so"))


def test_where_clang_looks(tmp_path: Path, asked: None) -> None:
    cc = c_compiler(tmp_path / "clang")
    ld = script(tmp_path / "elsewhere/x86_64-pc-linux-gnu-ld", "exit 0")
    (tmp_path / "clang.cfg").write_text("-s")
    says = (
        f"-print-prog-name=ld) echo {ld};;\n--version) echo clang 18; echo 'Configuration file: {tmp_path}/clang.cfg';;"
    )
    cc.write_text(cc.read_text().replace("*) echo", f"{says}\n*) echo"))
    flips = {"elsewhere/x86_64-pc-linux-gnu-ld": True, "clang.cfg": True, "clang/libexec/ld": True}
    parts_flip(tmp_path, flips, lambda: identity({**LINUX, "compiler": str(cc)}))


def test_a_subcommand_of_zig_is_no_program_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zig = Tool((str(script(tmp_path / "zig", "exit 0")), "ld.lld"), "lld", version="0.13")
    script(tmp_path / "bin/ld.lld", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    assert program_parts(zig).programs == (tmp_path / "zig",)


def test_a_script_that_starts_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: None) -> None:
    cc = c_compiler(tmp_path / "gcc")
    wrapper = script(tmp_path / "mine/cc", f'exec {cc} "$@"')
    flips = {"mine/cc": True, "gcc/bin/cc": True, "gcc/libexec/ld": True, "gcc/lib/crtendS.o": True}
    parts_flip(tmp_path, flips, lambda: identity({**LINUX, "compiler": str(wrapper)}))
    wrapper.write_text('#!/bin/sh\nexec "gcc-13" "$@"\n')
    cc.rename(cc.with_name("gcc-13"))
    monkeypatch.setenv("PATH", f"{tmp_path}/gcc/bin", prepend=":")
    parts_flip(tmp_path, {"gcc/bin/gcc-13": True}, lambda: identity({**LINUX, "compiler": str(wrapper)}))


def test_emscripten_with_llvm_and_binaryen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: None) -> None:
    emcc = emscripten(tmp_path)
    monkeypatch.delenv("EM_CONFIG", raising=False)
    flips = dict.fromkeys(
        ("llvm/clang", "llvm/clang-15", "llvm/wasm-ld", "binaryen/bin/wasm-opt", "emscripten/emcc"), True
    )
    own = ("emcc.py", "tools/shared.py", "system/lib/libc.c", "cache/sysroot/libc.a", "src/library.js", ".emscripten")
    flips |= {f"emscripten/{name}": name != "tests/test.py" for name in (*own, "tests/test.py")}
    flips |= {"lib/clang/15/include/stddef.h": True}
    parts_flip(tmp_path, flips, lambda: identity({"flags": [], "compiler": str(emcc)}, "wasm"))
    # Debian's launcher starts another directory's Emscripten.
    launcher = script(tmp_path / "bin" / "emcc", f'exec python3 "{tmp_path}/emscripten/$BASENAME.py" "$@"')
    launcher.write_text(launcher.read_text() + 'echo "x) 3.1.6"\n')
    assert digest_file(emcc) != digest_file(launcher)
    parts = Toolchain(Contents()).programs
    from llmbuild.emscripten import toolchain

    found = toolchain.parts(toolchain.find([str(launcher)]))
    assert found.complete and found.trees[0].root == tmp_path / "emscripten" and parts.digest(found)


def test_the_emscripten_of_an_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: None) -> None:
    upstream = tmp_path / "sdk" / "upstream"
    emcc = emscripten(upstream)
    (upstream / "emscripten/.emscripten").unlink()
    (tmp_path / "sdk/.emscripten").write_text(
        "import os\nemsdk_path = os.path.dirname(os.getenv('EM_CONFIG'))\n"
        "LLVM_ROOT = emsdk_path + '/upstream/llvm'\nBINARYEN_ROOT = emsdk_path + '/upstream/binaryen'\n"
    )
    monkeypatch.delenv("EM_CONFIG", raising=False)
    flips = dict.fromkeys(("llvm/clang", "llvm/wasm-ld", "binaryen/bin/wasm-opt", "emscripten/system/lib/libc.c"), True)
    # It fills its cache while it links, and another key for the next build would be the price.
    flips["emscripten/cache/sysroot/libc.a"] = False
    parts_flip(upstream, flips, lambda: identity({"flags": [], "compiler": str(emcc)}, "wasm"))


def test_nvcc_with_its_programs_and_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: None) -> None:
    nvidia(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    flips = dict.fromkeys(("bin/nvcc", "bin/ptxas", "bin/fatbinary", "bin/cudafe++", "nvvm/bin/cicc"), True)
    flips |= {"include/cuda_fp16.h": True, "nvvm/libdevice/libdevice.10.bc": True, "doc/readme.txt": False}

    def identify() -> str:
        nvcc = find_nvcc()
        assert nvcc is not None
        return f"{nvcc.identity}+sha256.{Programs(Contents()).digest(nvcc.parts)}"

    parts_flip(tmp_path, flips, identify)


def test_an_nvcc_that_a_launcher_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: None) -> None:
    nvcc = nvidia(tmp_path / "cuda")
    script(tmp_path / "launchers/nvcc", f'exec "{script(tmp_path / "launchers/inner", f"exec {nvcc}")}" "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/launchers", prepend=":")
    flips = dict.fromkeys(("launchers/nvcc", "launchers/inner", "cuda/bin/nvcc", "cuda/bin/ptxas"), True)
    flips |= {"cuda/nvvm/bin/cicc": True, "cuda/include/cuda_fp16.h": True}

    def identify() -> str:
        found = find_nvcc()
        assert found is not None
        return f"{found.identity}+sha256.{Programs(Contents()).digest(found.parts)}"

    parts_flip(tmp_path, flips, identify)


def test_the_wheels_of_cuda(tmp_path: Path) -> None:
    for name in ("lib/libnvrtc.so.13", "lib/libnvrtc-builtins.so.13", "include/cuda_fp16.h", "include/cccl/a", "other"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    nvrtc = Nvrtc(("13", "13", "13", "13", "13"), tmp_path)
    flips = {"lib/libnvrtc.so.13": True, "lib/libnvrtc-builtins.so.13": True, "include/cuda_fp16.h": True}
    flips |= {"include/cccl/a": True, "other": False}
    parts_flip(tmp_path, flips, lambda: f"{nvrtc.identity}+sha256.{Programs(Contents()).digest(nvrtc.parts)}")


def test_equal_packages_in_other_places_are_equal(tmp_path: Path, asked: None) -> None:
    one, other = c_compiler(tmp_path / "one"), c_compiler(tmp_path / "elsewhere" / "other")
    assert identity({**LINUX, "compiler": str(one)}) == identity({**LINUX, "compiler": str(other)})


@pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("ldd") is None, reason="there is no C compiler or no ldd"
)
def test_the_compiler_of_this_machine(tmp_path: Path) -> None:
    from llmbuild.linkers import elf, tools
    from llmbuild.programs.parts import loaded_libraries

    parts = tools.parts(elf.find(LINUX), LINUX)
    programs = [path.name for path in parts.programs]
    assert any(name.endswith("ld") or name.startswith("ld") for name in programs), programs
    assert {"crtbeginS.o", "crtendS.o"} & {path.name for path in parts.files} or "clang" in str(
        parts.programs[0].resolve()
    )
    libraries = {path.name for program in parts.programs for path in loaded_libraries(program)}
    assert not [name for name in libraries if name.startswith(("libc.so", "libm.so", "ld-linux", "linux-vdso"))]


def test_answers_are_remembered_under_what_they_follow_from(tmp_path: Path) -> None:
    program = script(tmp_path / "tool", "exit 0")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.py").write_text("a")
    (tree / "b.txt").write_text("b")
    asked: list[str] = []

    def ask() -> Json:
        asked.append("once")
        return "answer"

    memo = tmp_path / "memo.json"
    time.sleep(2.1)
    first = Programs(Contents(), memo)
    assert first.remembered(["q", 1], ask) == "answer"
    digest = first.digest(Parts((program,), trees=(FileTree(tree),)))
    first.save()
    again = Programs(Contents(), memo)
    assert again.remembered(["q", 1], ask) == "answer" and asked == ["once"]
    assert again.digest(Parts((program,), trees=(FileTree(tree),))) == digest
    assert again.listed(tree, FileTree(tree).walk(lambda name: name.endswith(".py"))) != again.tree(FileTree(tree))
    (tree / "b.txt").write_text("changed")
    assert Programs(Contents(), memo).digest(Parts((program,), trees=(FileTree(tree),))) != digest
    for damaged in (b"{", b"[]", b"[" * 100_000, b'{"x": NaN}'):
        memo.write_bytes(damaged)
        assert Programs(Contents(), memo).remembered(["q", 1], ask) == "answer"


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="part of a tool cannot be read") as refused:
        Programs(Contents()).digest(Parts((tmp_path / "gone",)))
    assert str(tmp_path / "gone") in str(refused.value)


A, B = (f"+sha256.{letter * 64}" for letter in "ab")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("linker", f"cc 12{A}", f"cc 12{B}", f"linker cc 12: the same version, other bytes ({'a' * 12} -> {'b' * 12})"),
        ("linker", "cc: 12", "cc: 12+sha256." + "b" * 64, "linker cc: 12: the same version, its bytes count now"),
        ("linker", "cc: 12+sha256." + "a" * 64, "cc: 13+sha256." + "b" * 64, "linker cc: 12 -> cc: 13"),
        ("variable SDK", "unset", "set+sha256." + "b" * 64, "the variable SDK unset -> set"),
        ("variable SDK", "set+sha256." + "a" * 64, "set+sha256." + "b" * 64, "the variable SDK has another value"),
        ("apache-tvm python", None, "0.27+sha256." + "b" * 64, "apache-tvm python is new: 0.27"),
    ],
)  # fmt: skip
def test_how_it_is_said(name: str, old: str | None, new: str, said: str) -> None:
    assert sentence(ToolChanged(name, old, new)) == said
