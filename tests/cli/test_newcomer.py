"""What a newcomer types, and what is said then: at 80 columns, to the character, with no name broken at the end of a line.

Each line of `golden/newcomer.txt` was read by a person: it names what is wrong and what to type instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmbuild.cli.main import main
from llmbuild.workspace.platform_tools import Machine
from tests.helpers import golden
from tests.helpers.cli import TINY_MANIFEST

GOLDEN = Path(__file__).parent / "golden" / "newcomer.txt"
WIDTH = 80
HUB = TINY_MANIFEST.replace('"checkpoint"', '"hf:HuggingFaceTB/SmolLM2-135M-Instruct"')


@dataclass(frozen=True)
class Typed:
    """A command line in a project with a manifest (None for none) and further directories, and its exit code."""

    title: str
    command: str
    code: int
    manifest: str | None = None
    directories: tuple[str, ...] = ()
    checkpoint: bool = False


def changed(old: str, new: str, manifest: str = HUB) -> str:
    assert old in manifest
    return manifest.replace(old, new, 1)


EVERY = [
    # Before there is anything.
    Typed("nothing at all", "", 2),
    Typed("a misspelt command", "bulid", 2),
    Typed("a misspelt option", "--verson", 2),
    Typed("mlc_llm's compile", "compile dist/model --device iphone", 2),
    Typed("mlc_llm's convert_weight", "convert_weight models/a --quantization q4f16_1", 2),
    Typed("mlc_llm's gen_config", "gen_config models/a", 2),
    Typed("a package manager's install", "install", 2),
    Typed("cargo's update", "update", 2),
    Typed("an option before the command", "--file mine.toml build", 2),
    Typed("help on a misspelt command", "help chatt", 2),
    Typed("a build without a manifest", "build", 2),
    Typed("a chat without a manifest", "chat", 2),
    Typed("init where nothing is", "init", 2),
    Typed("init with half a preset's name", "init smollm2", 2),
    Typed("init with a family's name", "init gemma2", 2),
    Typed("init with a data set's page", "init https://huggingface.co/datasets/org/name", 2),
    Typed("init with a misspelt directory", "init models/SmolLM", 2, directories=("models/SmolLM2",)),
    Typed("init with the address of a file", "init https://example.org/SmolLM2.gguf", 2),
    Typed("init with a name of the hub", "init HuggingFaceTB/SmolLM2-135M-Instruct", 0),
    Typed("init with a page of the hub", "init https://huggingface.co/Qwen/Qwen3-0.6B/tree/main", 0),
    Typed("init again", "init Qwen/Qwen3-0.6B", 2, HUB),
    # With a manifest, before a build.
    Typed("a device in the place of a platform", "build --device iphone", 2, HUB),
    Typed("a platform that is not in the manifest", "build -p iphone", 2, HUB),
    Typed("a misspelt quantization", "build -q q4f32", 2, HUB),
    Typed("a task that is none", "build web", 2, TINY_MANIFEST, checkpoint=True),
    Typed("a chat before the build", "chat", 2, TINY_MANIFEST, checkpoint=True),
    Typed("verify before the build", "verify", 2, TINY_MANIFEST, checkpoint=True),
    Typed("a server before the build", "serve", 2, TINY_MANIFEST, checkpoint=True),
    Typed("a report before the build", "report", 2, TINY_MANIFEST, checkpoint=True),
    Typed("why without a task", "why", 2, HUB),
    Typed("a plan without a network", "plan --offline", 4, HUB),
    Typed("many jobs", "build -j 0", 2, HUB),
    Typed("a target that is none", "targets gpu", 2),
    Typed("all packages without any", "package", 2, HUB),
    Typed("packages without any", "package web", 2, HUB),
    Typed("a misspelt package", "package servr", 2, HUB + "[package.server]\n"),
    Typed("a platform of a package", "package -p web", 2, HUB + "[package.server]\n"),
    Typed("publish without a destination", "publish", 2, HUB),
    Typed("publish to a repository without hf:", "publish org/tiny", 2, HUB),
    Typed("publish to a page of the hub", "publish https://huggingface.co/org/tiny", 2, HUB),
    Typed("publish to a tree of the hub", "publish https://huggingface.co/org/tiny/tree/main", 2, HUB),
    Typed("publish to a registry without a tag", "publish oci:ghcr.io/org/tiny", 2, HUB),
    Typed("publish before the build", "publish hf:org/tiny", 1, TINY_MANIFEST, checkpoint=True),
    Typed("clean in an empty directory", "clean", 2),
    Typed("clean where nothing was built", "clean", 0, HUB),
    Typed("clean the cache", "clean --cache", 2, HUB),
    Typed("doctor in a project that was never built", "doctor", 0, HUB),
    # Manifests.
    Typed("mlc_llm's name of a scheme", "plan", 2, changed("q4f32_1", "q4f16_ft")),
    Typed("a misspelt scheme", "plan", 2, changed("q4f32_1", "q4_f16")),
    Typed("a device in the manifest", "plan", 2, changed('"x86_64-linux-cpu"', '"ios"')),
    Typed("a temperature of the model", "plan", 2, changed("conv-template", "temperature = 0.7\nconv-template")),
    Typed("a window of the project", "plan", 2, changed("[project]", "[project]\ncontext-window-size = 4096")),
    Typed("lists at the top", "plan", 2, changed("[project]", 'quantizations = ["q4f16_1"]\n[project]')),
    Typed("a page as the source", "plan", 2, changed("hf:", "https://huggingface.co/")),
    Typed("a repository without hf:", "plan", 4, changed("hf:", "")),
    Typed("no conversation template", "plan", 2, changed('conv-template = "chatml"\n', "")),
    Typed("an unset variable", "plan", 2, changed("hf:HuggingFaceTB", "${NOWHERE}")),
    Typed(
        "a scheme that a platform cannot compute",
        "plan",
        2,
        changed('"x86_64-linux-cpu"', '"web"', changed("q4f32_1", "q4bf16_1")),
    ),
    Typed("no source", "plan", 2, changed('source = "hf:HuggingFaceTB/SmolLM2-135M-Instruct"\n', "")),
    Typed(
        "a package of a platform that is not built",
        "plan",
        2,
        changed("x86_64-linux-cpu", "iphone") + "[package.server]\n",
    ),
    Typed("no TOML", "plan", 2, changed('"tiny"', "tiny")),
]


def test_there_are_at_least_thirty() -> None:
    assert len({typed.title for typed in EVERY}) == len(EVERY) >= 30


def test_what_a_newcomer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "LLMBUILD_CACHE": str(tmp_path / "store")}.items():
        monkeypatch.setenv(name, value)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "LLMBUILD_EXECUTOR", "LLMBUILD_REMOTE", "NOWHERE"):
        monkeypatch.delenv(name, raising=False)
    # What doctor says of this machine depends on what it has: its tools are there, and the other lines are left out.
    monkeypatch.setattr(Machine, "linker", lambda self, link, artifact: "cc: gcc 13.2.0")
    monkeypatch.setattr(Machine, "missing_for_device", lambda self, part: [])
    text, wrong = "", []
    for number, typed in enumerate(EVERY):
        directory = tmp_path / str(number)
        directory.mkdir()
        monkeypatch.chdir(directory)
        prepare(typed)
        # Messages name the directory, whose length is another on each machine.
        monkeypatch.setattr("llmbuild.workspace.place._here", here(typed))
        code = main(typed.command.split())
        out, err = capsys.readouterr()
        said = f"{out}{err}".replace(f"{directory}/", "").replace(str(directory), ".")
        said = re.sub(r"^\w+ +(python|tvm|settings|store|memory):.*\n(        .*\n)*", "", said, flags=re.MULTILINE)
        wrong += [(typed.title, line) for line in said.splitlines() if len(line) > WIDTH]
        # A name is whole on its line: nothing ends within one.
        wrong += [(typed.title, broken) for broken in re.findall(r".*[\w.]-\n", said)]
        if code != typed.code or "Traceback" in said or "internal error" in said:
            wrong.append((typed.title, f"{code}, not {typed.code}: {said}"))
        # Which commands there are is shown elsewhere.
        said = re.sub(r"(?<=^commands:\n)(  .*\n)+", "  …\n", said, flags=re.MULTILINE)
        text += f"# {typed.title}\n$ llmbuild {typed.command}\n{said}[{code}]\n\n"
    golden.check(GOLDEN, text)
    assert wrong == []


def here(typed: Typed) -> Callable[[], Path]:
    """The directory that a manifest is looked for in: its real one only where it has one."""
    return Path.cwd if typed.manifest is not None else lambda: Path("/project")


def prepare(typed: Typed) -> None:
    if typed.manifest is not None:
        Path("buildfile.toml").write_text(typed.manifest)
    for directory in typed.directories:
        Path(directory).mkdir(parents=True)
    if typed.checkpoint:
        Path("checkpoint").mkdir()
        Path("checkpoint/config.json").write_text(json.dumps({"model_type": "llama"}))
        Path("checkpoint/model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
