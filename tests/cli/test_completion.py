"""Completion as shells ask for it, in real shells where this machine has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.helpers.cli import TINY_MANIFEST

ROOT = Path(__file__).parent.parent.parent
PLATFORM = "x86_64-linux-cpu"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project, and a directory `bin` with the command."""
    (tmp_path / "buildfile.toml").write_text(
        TINY_MANIFEST.replace("[metadata]", "[models.large]\nsource = 'x'\nconv-template = 'chatml'\n[metadata]")
    )
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/llmbuild"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m llmbuild \"$@\"\n")
    command.chmod(0o755)
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(place),
        "TERM": "dumb",
    }


def answers(place: Path, line: str) -> list[str]:
    """What the command answers a shell that completes the end of a line."""
    # The protocol's answer goes to descriptor 8, which the shell gives.
    done = subprocess.run(
        ["bash", "-c", "exec llmbuild 8>&1 9>/dev/null 1>/dev/null"],
        cwd=place,
        env=environment(place)
        | {
            "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
            "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
        },
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split("\n") if done.stdout else []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llmbuild bu", ["build"]),
        ("llmbuild d", ["doctor"]),
        ("llmbuild build --keep", ["--keep-going"]),
        ("llmbuild build -m ", ["tiny", "large"]),
        ("llmbuild chat t", ["tiny"]),
        ("llmbuild build --quantization q", ["q4f32_1"]),
        ("llmbuild plan -p ", [PLATFORM]),
        ("llmbuild why li", [rf"link\[tiny,\ q4f32_1,\ {PLATFORM}\]"]),
        ("llmbuild targets wasm32-webgpu", ["wasm32-webgpu"]),
        ("llmbuild cache ver", ["verify"]),
        ("llmbuild completion z", ["zsh"]),
        ("llmbuild build -f missing.toml -m ", []),
    ],
)
def test_what_a_line_is_completed_with(place: Path, line: str, expected: list[str]) -> None:
    assert [answer.rstrip() for answer in answers(place, line)] == expected


def test_a_broken_manifest_completes_nothing_and_prints_nothing(place: Path) -> None:
    (place / "buildfile.toml").write_text("[models")
    assert answers(place, "llmbuild build -m ") == []
    assert [answer.rstrip() for answer in answers(place, "llmbuild build --ke")] == ["--keep-going"]


SETUP = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(llmbuild completion bash)"'),
    "zsh": (["-f", "-i"], 'autoload -Uz compinit && compinit -u; eval "$(llmbuild completion zsh)"'),
    "fish": (["--no-config", "-i"], "llmbuild completion fish | source"),
}


@pytest.mark.parametrize("shell", SETUP)
def test_a_shell_completes_a_model_of_the_manifest(place: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not here")
    options, setup = SETUP[shell]
    child = pexpect.spawn(
        program, options, cwd=str(place), env={**environment(place), "TERM": "xterm"},
        encoding="utf-8", timeout=30, dimensions=(24, 120),
    )  # fmt: skip
    child.sendline(f"{setup}; echo ready$((1 + 1))" if shell != "fish" else f"{setup}; echo ready(math 1 + 1)")
    child.expect("ready2")
    child.send("llmbuild build --model lar\t")
    child.expect("--model lar.*ge ?")
    child.sendcontrol("c")
    child.close(force=True)


def test_the_start_of_a_command_does_not_load_it() -> None:
    probe = "import sys; from llmbuild.cli.main import main; main(['--help']); assert 'argcomplete' not in sys.modules"
    subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)
