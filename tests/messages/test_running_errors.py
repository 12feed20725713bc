"""Errors of commands and of running libraries that no other test provokes in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuild.engine.store import Store
from llmbuild.errors import LlmbuildError
from tests.helpers import engine_kinds
from tests.helpers.cli import TINY_MANIFEST
from tests.helpers.engine_build import build, write_task

Case = Callable[[Path, pytest.MonkeyPatch], object]
DIGEST = "3f9c02d417aa"


def command(*arguments: str, manifest: str = TINY_MANIFEST) -> Case:
    """A command in a project without anything but a manifest."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        import importlib

        from llmbuild.cli.main import COMMANDS, _parser

        patch.chdir(path)
        patch.setenv("LLMBUILD_CACHE", str(path / "store"))
        Path("buildfile.toml").write_text(manifest)
        module = importlib.import_module(COMMANDS[arguments[0]][0])
        module.run(_parser(arguments[0], module).parse_args(arguments[1:]))

    return provoke


def without_manifest(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.place import find_manifest

    patch.chdir(path)
    find_manifest(None)


def several_built(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.cli import chat

    found = [SimpleNamespace(label=f"tiny, q4f32_1, {name}") for name in ("native", "generic")]
    patch.setattr(chat, "select_or_build", lambda args: found)
    command("chat")(path, patch)


def unknown_command(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.cli.main import _dispatch

    _dispatch(["frobnicate"])


def two_actions(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.recorded import find_action

    store = Store(path / "store")
    for last in "ab":
        file = store.action_path(DIGEST.ljust(63, "0") + last)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    find_action(store, DIGEST)


def no_package(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.tool_identities import Toolchain

    Toolchain(SimpleNamespace(digest=str), [str(path)]).version("llmbuild-has-no-such-package")  # type: ignore[arg-type]


def no_native_library(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.tool_identities import Toolchain

    patch.setattr(Toolchain, "_libraries", lambda self, place: [])
    Toolchain(SimpleNamespace(digest=str)).identity("apache-tvm")  # type: ignore[arg-type]


def no_current_directory(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.place import find_manifest

    (path / "gone").mkdir()
    patch.chdir(path / "gone")
    (path / "gone").rmdir()
    find_manifest(None)


def no_text_in_a_path(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.place import require_text_path

    require_text_path(path / "h\udcff", "the project's directory")


def a_result_that_is_gone(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.cli import exec_
    from llmbuild.executors.local import LocalExecutor

    patch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    store = Store(path / "store")
    result, _ = build(store, [write_task("a", {"x": "1"})])
    action = result.outcomes["a"].action
    assert action is not None
    store.traces.remove(action)
    store.close()
    patch.setattr(LocalExecutor, "run", lambda *_, **__: None)
    exec_.run(SimpleNamespace(cache_dir=path / "store", digest=action, trust=True, out=None, dump=None))  # type: ignore[arg-type]


def unreadable_events(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.recording import read_events

    read_events(path)


def events_without_an_event(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace.recording import read_events

    (path / "events.ndjson").write_text("[]\n")
    read_events(path / "events.ndjson")


def no_statement(path: Path, patch: pytest.MonkeyPatch) -> None:
    command("verify", "--provenance")(path, patch)


def a_library_without_a_statement(path: Path, patch: pytest.MonkeyPatch) -> None:
    library = path / "dist/libs/tiny-q4f32_1-x86_64-linux-cpu.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    no_statement(path, patch)


# Running a library.


def index(*, md5: str = "", size: int = 4, file: bool = True) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.runtime.weights import check_shards

        if file:
            (path / "params_shard_0.bin").write_bytes(b"1234")
        check_shards(path, {"records": [{"dataPath": "params_shard_0.bin", "nbytes": size, "md5sum": md5}]})

    return provoke


def broken_index(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.runtime.weights import read_tensor_index

    (path / "tensor-cache.json").write_text("{")
    read_tensor_index(path)


def other_parameters(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.runtime import weights
    from llmbuild.runtime.library import Library, ParameterRecord

    patch.setattr(weights, "read_chat_config", lambda directory: {"vocab_size": 320})
    patch.setattr(Library, "parameters", (ParameterRecord("model.norm.weight", (64,), "float32"),))
    stored = [{"name": "model.norm.weight", "shape": [32], "dtype": "float16"}]
    stored += [{"name": f"model.layers.{layer}.weight", "shape": [4], "dtype": "float32"} for layer in range(8)]
    library = Library(path / "lib.so", None, {}, None)
    weights.check_parameters(library, path, {"records": [{"records": stored}]})


def reading(name: str, module: str) -> Case:
    """A function of the runtime that reads a directory or a file."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        import importlib

        getattr(importlib.import_module(f"llmbuild.runtime.{module}"), name)(path)

    return provoke


def loading(name: str, content: bytes | None = None) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.runtime.library import load_library

        if content is not None:
            (path / name).write_bytes(content)
        load_library(path / name)

    return provoke


def no_function(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.runtime.library import Library

    class Machine:
        def __getitem__(self, name: str) -> None:
            raise AttributeError(name)

    Library(path / "lib.so", Machine(), {}, None).function("batch_prefill")


def sampling(**values: float) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.runtime.sampling import Sampling

        Sampling(**values)

    return provoke


def session(method: str, argument: Any) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.runtime.session import Session

        made = object.__new__(Session)
        made.chunk = 32
        getattr(made, method)(argument)

    return provoke


def prompting(*tokens: int) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.runtime.completer import Completer

        completer = object.__new__(Completer)
        completer.context = 64
        completer.require_room(tokens)

    return provoke


def verifying(shape: tuple[int, ...], values: tuple[float, float]) -> Case:
    """`verify` of a library whose logits are these: token by token, and at once."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        import numpy as np

        from llmbuild.conversation.templates import resolve_template
        from llmbuild.runtime import verify

        class Session:
            def __init__(self, *_: object, **__: object) -> None:
                pass

            def add(self, sequence: int) -> None:
                pass

            def prefill(self, tokens: list[int], sequence: int) -> Any:
                return np.full(shape, values[sequence], np.float32)

            def decode(self, token: int, sequence: int) -> Any:
                return np.full(shape, values[0], np.float32)

        template = resolve_template("LM", path)
        metadata = {"prefill_chunk_size": 32, "params": [{"dtype": "float32"}]}
        for name, value in {
            "read_tensor_index": {"records": []},
            "check_shards": None,
            "load_library": SimpleNamespace(metadata=metadata),
            "check_parameters": 0,
            "read_chat_config": {"active_vocab_size": 300, "vocab_size": 320, "conv_template": template},
            "load_parameters": None,
        }.items():
            patch.setattr(verify, name, lambda *_, value=value: value)
        patch.setattr(verify, "Session", Session)
        verify.verify(path / "lib.so", path)

    return provoke


# Compilers of browsers' libraries and of devices.


def no_emscripten(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.emscripten import toolchain

    toolchain.identity(str(path / "emcc"))


def runtime_sources(package: bool) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from llmbuild.emscripten import runtime

        if package:
            patch.setattr(runtime, "_package", lambda name: path / name)
            runtime.prepare_sources(path / "scratch")
        runtime._package("llmbuild_has_no_such_package")

    return provoke


CASES: dict[str, Case] = {
    "no manifest": without_manifest,
    "no manifest of that name": command("plan", "--file", "nowhere.toml"),
    "no jobs": command("build", "--jobs", "0"),
    "no threads": command("verify", "--threads", "0"),
    "too many threads": command("chat", "--threads", "999999999"),
    "a library alone": command("verify", "--library", "lib.so"),
    "not built": command("verify"),
    "no tokens": command("chat", "--max-tokens", "0"),
    "no context": command("chat", "--context", "0"),
    "several libraries": command("chat", "--library", "lib.so", "--weights", "."),
    "several built libraries": several_built,
    "an unknown command": unknown_command,
    "no action": command("exec", DIGEST),
    "no digest": command("exec", "lower"),
    "two actions": two_actions,
    "an unknown model": command("verify", "tinny"),
    "an unknown platform": command("verify", "--platform", "x86_64-linux-gpu"),
    "nothing that runs here": command("verify", manifest=TINY_MANIFEST.replace("x86_64-linux", "aarch64-linux")),
    "what runs elsewhere": command(
        *("verify", "--platform", "aarch64-linux-cpu"),
        manifest=TINY_MANIFEST.replace('"x86_64-linux-cpu"', '"x86_64-linux-cpu", "aarch64-linux-cpu"'),
    ),
    "no package": no_package,
    "no native library": no_native_library,
    "no current directory": no_current_directory,
    "a directory whose name is no text": no_text_in_a_path,
    "a result that is gone": a_result_that_is_gone,
    "events that cannot be read": unreadable_events,
    "events without an event": events_without_an_event,
    "no build to report on": command("report"),
    "events that are not there": command("report", "--events", "none.ndjson"),
    "nothing is built": no_statement,
    "a library without a statement": a_library_without_a_statement,
    "a file without a statement": command("verify", "--provenance", "buildfile.toml"),
    "a file and a selection": command("verify", "-p", "x86_64-linux-cpu", "--provenance", "buildfile.toml"),
    "a missing shard": index(file=False),
    "a short shard": index(size=5),
    "another shard": index(md5="0" * 32),
    "no index": reading("read_tensor_index", "weights"),
    "a broken index": broken_index,
    "other parameters": other_parameters,
    "no chat config": reading("read_chat_config", "chat_config"),
    "no tokenizer": reading("load_tokenizer", "tokenizer"),
    "an archive": loading("lib.tar"),
    "no library": loading("lib.so"),
    "a library that is none": loading("lib.so", b"no library"),
    "no function": no_function,
    "a cold temperature": sampling(temperature=-1.0),
    "a large top-p": sampling(top_p=2.0),
    "no repetition": sampling(repetition_penalty=0.0),
    "an empty prompt": session("prefill", []),
    "a long batch": session("batch_prefill", {0: [1] * 40}),
    "a long conversation": prompting(*range(70)),
    "a conversation without words": prompting(),
    "logits of another shape": verifying((300,), (1.0, 1.0)),
    "logits that are not finite": verifying((320,), (float("nan"), 1.0)),
    "logits that differ": verifying((320,), (1.0, 2.0)),
    "no compiler for browsers": no_emscripten,
    "no sources of the runtime": runtime_sources(package=True),
    "no package of the runtime": runtime_sources(package=False),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LlmbuildError):
        CASES[name](tmp_path, monkeypatch)
